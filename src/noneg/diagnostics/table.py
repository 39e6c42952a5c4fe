"""The table of all meters in docs/diagnostics.md: `python -m noneg.diagnostics.table`."""

from noneg.diagnostics.meters import METERS


def meter_table() -> str:
    """A Markdown table of METERS, a row for each meter."""
    rows = [
        f"| {meter.title} (`{name}`) | {meter.better} | {meter.blind} |"
        for name, meter in METERS.items()
    ]
    return "\n".join(["| meter | better | what it cannot see |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(meter_table())
