"""Made-up table facts for the pure tests of the snapshot room."""

from pgkura.core.facts import Column, TableFacts


def column(attnum: int, name: str, type_: str = "integer", *, not_null: bool = False, generated: str = "") -> Column:
    """One column."""
    return Column(attnum=attnum, name=name, type=type_, not_null=not_null, generated=generated)


def table(
    name: str = "t",
    *,
    oid: int = 20000,
    filenode: int = 0,
    pages: int = 1,
    size: int = 8192,
    columns: tuple[Column, ...] = (Column(attnum=1, name="id", type="integer", not_null=True),),
    kind: str = "r",
    access_method: str = "heap",
    config_where: str = "",
    readable: bool = True,
) -> TableFacts:
    """An ordinary table of one page, unless told otherwise."""
    return TableFacts(
        oid=oid,
        schema="public",
        name=name,
        kind=kind,
        owner="owner",
        persistence="p",
        access_method=access_method,
        filenode=filenode or oid,
        pages=pages,
        bytes=size,
        columns=columns,
        config_where=config_where,
        readable=readable,
    )
