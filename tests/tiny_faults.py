"""Damage for files of weights and checkpoints."""

import io
import os
import pickle
import zipfile


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.open, (str(self.path), os.O_CREAT | os.O_WRONLY)


def malicious_pickle(path, archive):
    """Return a pickle that makes a file where it is loaded by a reader that runs code.

    Parameters
    ----------
    path : path
        The file that it would make.
    archive : bool
        Whether the pickle lies in an archive such as torch writes.
    """
    content = pickle.dumps(_Touch(path), protocol=2)
    if not archive:
        return content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()
