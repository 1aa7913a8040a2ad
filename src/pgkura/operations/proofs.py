"""Where a proof goes: the journal, or beside the user where the store may only be read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgkura.core.errors import StoreError, WrongKey
from pgkura.core.progress import Progress
from pgkura.repository.repository import Repository


def keep_proof(repo: Repository, kind: str, body: Mapping[str, Any], progress: Progress) -> None:
    """Sign it into the journal. A store that refuses, or a person's identity, which signs nothing,
    does not undo a restore: the record is then saved and named."""
    try:
        repo.append_journal(kind, body)
    except (StoreError, WrongKey) as error:
        path = Path.cwd() / f"pgkura-{kind}-{body.get('snapshot', repo.repository_id)}.json"
        reason = f"the {kind} could not be added to the journal ({error.msg})"
        try:
            path.write_text(json.dumps(dict(body), ensure_ascii=False, indent=2) + "\n")
        except OSError:
            progress.note(f"{reason}, nor saved at {path}; it is in the result below")
        else:
            progress.note(f"{reason}; it is saved as {path}")
