"""A run's directory -> one self-contained HTML page; several runs -> one that compares them."""

from noneg.report.write import write_report

__all__ = ["write_report"]
