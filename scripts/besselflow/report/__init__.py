"""Self-contained HTML reports: of a sample, of the whole cohort, and of several configurations."""

from besselflow.report.ablation_page import write_ablation
from besselflow.report.cohort_page import write_cohort_report
from besselflow.report.cohort_rows import SampleStatus
from besselflow.report.inputs import EvaluationFiles, SampleReportInputs, ValidationFiles
from besselflow.report.sample_page import write_sample_report

__all__ = [
    "EvaluationFiles",
    "SampleReportInputs",
    "SampleStatus",
    "ValidationFiles",
    "write_ablation",
    "write_cohort_report",
    "write_sample_report",
]
