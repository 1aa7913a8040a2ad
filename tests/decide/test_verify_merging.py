"""One list of findings: nothing lost is ever hidden by a rule, and no object stands there twice."""

from hypothesis import given
from hypothesis import strategies as st

from pgkura.core.names import quote_ident
from pgkura.core.outcome import Finding, FindingClass, Result, decide
from pgkura.verify.merging import merge, plain

NEWLINE, BACKSLASH = quote_ident("a\nb"), quote_ident("back\\slash")
RULE = {FindingClass.MANAGED: "platform-object", FindingClass.BY_DESIGN: "vault-new-id"}


def finding(cls: FindingClass, name: str = "vault secret key", reason: str = "why") -> Finding:
    """A finding with a rule where its class needs one."""
    return Finding(cls=cls, object=name, reason=reason, rule=RULE.get(cls, ""))


FINDINGS = st.lists(
    st.builds(finding, st.sampled_from(FindingClass), st.sampled_from(["a", "b", '"a"', "c d", '"c d"']), st.text())
)


@given(FINDINGS, FINDINGS)
def test_merging_never_turns_red_to_green(told: list[Finding], found: list[Finding]) -> None:
    """What alone would be incomplete stays incomplete."""
    worst = {decide(told), decide(found)}
    assert (decide(merge(told, found)) is Result.INCOMPLETE) is (Result.INCOMPLETE in worst)


@given(FINDINGS, FINDINGS)
def test_each_object_once(told: list[Finding], found: list[Finding]) -> None:
    """And every object that was named."""
    names = [plain(f.object) for f in merge(told, found)]
    assert len(names) == len(set(names))
    assert set(names) == {plain(f.object) for f in (*told, *found)}


def test_denied_explains_that_it_is_missing() -> None:
    """A policy that could not be made is denied, not also lost."""
    told = finding(FindingClass.DENIED, 'policy "p" on "storage"."objects"', "not the owner")
    found = finding(FindingClass.LOST, "policy p on storage.objects", "it is missing")
    assert merge([told], [found]) == [told]


def test_by_design_does_not_hide_a_loss() -> None:
    """A secret made again under a new id, and then found to hold another value, is lost."""
    told, found = finding(FindingClass.BY_DESIGN), finding(FindingClass.LOST, reason="it differs")
    assert merge([told], [found]) == [found]
    assert merge([finding(FindingClass.MANAGED)], [found]) == [found]
    denied = finding(FindingClass.DENIED)
    assert merge([told], [denied]) == [denied]


def test_names_as_plans_and_as_catalogs_write_them() -> None:
    """Quotes only where they mean something, blanks only inside of them."""
    assert plain('relation "public"."users"') == plain("relation public.users")
    assert plain('function "public".f(integer, text)') == plain("function public.f(integer,text)")
    assert plain('relation "public"."a b"') != plain('relation "public"."ab"')
    assert plain('relation "public"."Users"') != plain("relation public.users")
    assert plain(f"relation {NEWLINE}") == plain('relation "a\nb"')
    assert plain(f"relation {BACKSLASH}") == plain('relation "back\\slash"')
