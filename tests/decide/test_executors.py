"""What `--executor` may mean, decided before anything is connected to."""

from pathlib import Path

import pytest

from pgkura.app.executors import choose, is_loopback
from pgkura.core.access import Access, hold, shareable
from pgkura.core.errors import UsageError


def tls(folder: Path) -> dict[str, str]:
    """Three files that exist."""
    names = {"PGKURA_DASK_CA": "ca", "PGKURA_DASK_CERT": "cert", "PGKURA_DASK_KEY": "key"}
    for name in names.values():
        (folder / name).write_text("")
    return {variable: str(folder / name) for variable, name in names.items()}


@pytest.mark.parametrize("word", ["auto", "threads", "processes"])
def test_words(word: str) -> None:
    assert (choose(word, {}).kind, choose(word, {}).scheduler) == (word, "")


def test_loopback_may_be_plain_and_uses_tls_where_files_are_given(tmp_path: Path) -> None:
    assert choose("dask://127.0.0.1", {}).scheduler == "tcp://127.0.0.1:8786"
    assert choose("dask://[::1]:1", {}).scheduler == "tcp://[::1]:1"
    assert choose("dask://localhost:1", tls(tmp_path)).scheduler == "tls://localhost:1"


@pytest.mark.parametrize("word", ["dask://10.0.0.5:8786", "tcp://dask.internal:8786", "tls://127.0.0.1:8786"])
def test_no_tls_is_refused_with_the_reason(word: str) -> None:
    with pytest.raises(UsageError, match="no TLS files") as refused:
        choose(word, {})
    assert "runs code on its workers" in refused.value.detail and "PGKURA_DASK_CA" in refused.value.hint


def test_plain_tcp_off_loopback_is_refused_even_with_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        choose("tcp://10.0.0.5:8786", tls(tmp_path))
    assert choose("dask://10.0.0.5:8786", tls(tmp_path)).scheduler == "tls://10.0.0.5:8786"


def test_files_belong_together(tmp_path: Path) -> None:
    files = tls(tmp_path)
    with pytest.raises(UsageError, match="PGKURA_DASK_KEY is missing"):
        choose("dask://h:1", files | {"PGKURA_DASK_KEY": ""})
    with pytest.raises(UsageError, match="PGKURA_DASK_CA names no file"):
        choose("dask://h:1", files | {"PGKURA_DASK_CA": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "word", ["", "dask", "dask://", "dask://h:99999", "http://h:1", "dask://u:p@h:1", "dask://h/x"]
)
def test_nonsense(word: str) -> None:
    with pytest.raises(UsageError):
        choose(word, {})


def test_loopback() -> None:
    assert is_loopback("127.1.2.3") and is_loopback("::1") and not is_loopback("10.0.0.1") and not is_loopback("host")


def test_only_references_that_mean_something_elsewhere_may_leave() -> None:
    fine = Access(database="env:DATABASE_URL", repository="s3://b/p", host_key="file:/etc/pgkura/host.key")
    shareable(fine)
    secret = "postgresql://u:very-secret@h/d"
    with pytest.raises(UsageError, match=r"database URL .*`held:` reference") as refused:
        shareable(Access(database=hold("flag", secret), repository="s3://b/p"))
    assert "very-secret" not in str(refused.value)
