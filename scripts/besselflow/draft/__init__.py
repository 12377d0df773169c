"""A first draft of a sample sheet from a directory tree: what lies there, what belongs together."""

from besselflow.draft.names import core_of, is_beads, is_truth, sample_name
from besselflow.draft.scan import Found, find_all
from besselflow.draft.sheet import Draft, draft_rows, write_draft

__all__ = [
    "Draft",
    "Found",
    "core_of",
    "draft_rows",
    "find_all",
    "is_beads",
    "is_truth",
    "sample_name",
    "write_draft",
]
