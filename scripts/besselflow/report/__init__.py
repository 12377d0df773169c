"""Self-contained HTML reports: one page per sample and one for the whole cohort."""

from besselflow.report.cohort_page import SampleStatus, write_cohort_report
from besselflow.report.inputs import SampleReportInputs, ValidationFiles
from besselflow.report.sample_page import write_sample_report

__all__ = [
    "SampleReportInputs",
    "SampleStatus",
    "ValidationFiles",
    "write_cohort_report",
    "write_sample_report",
]
