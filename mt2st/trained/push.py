"""An exported folder to the Hugging Face Hub, in one commit."""

from __future__ import annotations

import re
from pathlib import Path

from mt2st.errors import Mt2stError


def check_name(name: str) -> None:
    """Raise `Mt2stError` unless `name` is owner/name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}", name, re.ASCII):
        raise Mt2stError(
            f"--push {name!r} is no name on the Hub; give owner/name, of letters, digits, '-', '_' and '.'"
        )


def push(folder: Path, name: str) -> str:
    """Upload the folder to the repository `name`, made private where it does not exist; the commit's address.

    The token is the one that huggingface_hub finds: HF_TOKEN, or that of `hf auth login`.

    Raises:
        Mt2stError: no such name, no right to write there, no network; the folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    check_name(name)
    # The HTTP client differs between versions; the base of its errors is the first base of the Hub's own.
    client_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        api = HfApi()
        api.create_repo(name, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Exported by mt2st")
    except (client_error, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise Mt2stError(
            f"{name} was not pushed ({reason}); {folder} is whole: hf upload {name} {folder} does it, once HF_TOKEN is "
            "a token that may write there"
        ) from None
    return str(commit.commit_url)
