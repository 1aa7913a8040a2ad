"""One connection: what a slow server, a broken one and a cancelled one do to us."""

from contextlib import closing

from tests.support.servers import newest

from pgkura.core.memory import sample
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect

MIB = 1024 * 1024


def test_a_server_slower_than_us_is_waited_for_not_buffered_for() -> None:
    url = newest().create_database("slow_copy")
    rows = (b"x" * 200 + b"\n") * 1200
    with closing(connect(Endpoint.parse(url), application_name="pgkura test")) as session:
        session.script("CREATE TABLE public.t (a text); CREATE INDEX ON public.t (md5(md5(md5(a))))")
        before = sample()
        peak = 0
        with session.copy_in("COPY public.t FROM STDIN") as copy:
            for number in range(400):
                copy.write(rows)
                if number % 20 == 0:
                    peak = max(peak, sample())
        assert session.one("SELECT count(*) FROM public.t") == (400 * 1200,)
    assert peak - before < 30 * MIB, "96 MB were sent, and kept until the server took them"
