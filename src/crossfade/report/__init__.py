"""What was measured and done, for people: HTML, Markdown, JSON and the terminal."""

from crossfade.report.samples import Hit, SampleSearch
from crossfade.report.write import ReportPaths, write_report

__all__ = ["Hit", "ReportPaths", "SampleSearch", "write_report"]
