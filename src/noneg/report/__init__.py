"""The directory of a run -> one self-contained HTML page; several runs -> a comparison."""

from noneg.report.write import write_report

__all__ = ["write_report"]
