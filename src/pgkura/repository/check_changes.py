"""Reads the change log's files back: signatures, records, parts. What is in the messages is the replay's to say."""

from collections.abc import Iterator

from pgkura.core.errors import PgkuraError
from pgkura.repository.changes import CHAINS, Changes, PartRef


def damaged_changes(repo: Changes) -> Iterator[tuple[str, PgkuraError]]:
    """Every file that is damaged or missing, with its error. A chain's gaps are its segments' names to tell."""
    for chain in repo.chain_ids():
        for name in repo.chain_names(chain, ""):
            try:
                repo.chain_record(chain, name)
            except PgkuraError as error:
                yield f"{CHAINS}{chain}/{name}", error
        for segment in repo.segments(chain):
            try:
                record, _ = repo.segment(chain, segment)
                for part in record["parts"]:
                    repo.part(chain, PartRef(id=part["id"], bytes=part["bytes"], sha256=part["sha256"]))
            except PgkuraError as error:
                yield segment.key(chain), error
