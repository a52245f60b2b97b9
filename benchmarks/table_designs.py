"""Table designs that `benchmarks.table_size` measures.

They are there to be measured; most could not be adopted as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgtrace.model.span import SPAN_COLUMNS

_IDENTITY = "(tenant_id, trace_id, span_id, start_time_ns)"
_WITH_SERVICE = [("UNIQUE", _IDENTITY), ("", "(tenant_id, service_name, start_time_ns)")]


@dataclass(frozen=True, kw_only=True)
class Design:
    """One way to keep spans.

    changes: what makes the design of a table `design` that is as the migrations make it, but for
    the indexes. indexes: what stands between CREATE and INDEX, and behind ON design.
    stored: SQL for what a column takes instead of its value. after: done when all is written.
    page_bytes, key, of_trace: SQLite's size of a page, its primary key instead of a row number, and
    how a trace is looked up.
    """

    name: str
    changes: Sequence[str] = ()
    indexes: Sequence[tuple[str, str]] = (("UNIQUE", _IDENTITY),)
    stored: dict[str, str] = field(default_factory=dict)
    after: str = ""
    page_bytes: int = 0
    key: str = ""
    of_trace: str = "tenant_id = 0 AND trace_id = ?"

    @property
    def selected(self) -> str:
        """The columns of `spans` as the design takes them, in SPAN_COLUMNS order."""
        return ", ".join(self.stored.get(name, name) for name in SPAN_COLUMNS)


def _inline(compression: str) -> list[str]:
    return [
        f"ALTER TABLE design ALTER attributes SET COMPRESSION {compression}",
        "ALTER TABLE design ALTER attributes SET STORAGE MAIN",
        "ALTER TABLE design SET (toast_tuple_target = 128)",
    ]


_NARROW = [
    "ALTER TABLE design ALTER kind TYPE smallint, ALTER status_code TYPE smallint",
    "ALTER TABLE design ALTER flags TYPE integer, ALTER resource_id TYPE integer",
    "ALTER TABLE design ALTER scope_id TYPE integer",
]
_NARROWED = {"resource_id": "1", "scope_id": "1"}

_DIGEST = "md5(int4send(tenant_id) || trace_id || span_id || int8send(start_time_ns))::uuid"

POSTGRES = [
    Design(name="as it is"),
    Design(name="attributes pglz, inline", changes=_inline("pglz")),
    Design(name="attributes lz4, inline", changes=_inline("lz4")),
    Design(name="attributes jsonb", changes=["ALTER TABLE design ALTER attributes TYPE jsonb"]),
    Design(
        name="attributes without their keys",
        stored={"attributes": "(SELECT json_agg(value) FROM json_each(attributes))"},
    ),
    Design(name="narrow integers, local numbers", changes=_NARROW, stored=_NARROWED),
    Design(name="with a service index", indexes=_WITH_SERVICE),
    Design(
        name="identity by digest + trace index",
        indexes=[("UNIQUE", f"(({_DIGEST}))"), ("", "(tenant_id, trace_id)")],
    ),
    Design(name="indexes rebuilt", after="REINDEX TABLE design"),
    Design(
        name="lz4, narrow, digest, rebuilt",
        changes=[*_inline("lz4"), *_NARROW],
        indexes=[("UNIQUE", f"(({_DIGEST}))"), ("", "(tenant_id, trace_id)")],
        stored=_NARROWED,
        after="REINDEX TABLE design",
    ),
]

_NO_KEYS = {"attributes": "(SELECT json_group_array(value) FROM json_each(attributes))"}
_NUMBERED = {"trace_id": "(SELECT number FROM numbers WHERE trace = trace_id)"}

SQLITE = [
    *(
        Design(name=f"as it is, pages of {size:,}", page_bytes=size)
        for size in (4096, 8192, 16_384, 32_768)
    ),
    *(
        Design(
            name=f"identity as key, pages of {size:,}",
            page_bytes=size,
            key=_IDENTITY,
            indexes=[],
        )
        for size in (4096, 16_384)
    ),
    Design(
        name="key of numbered traces, 16,384",
        page_bytes=16_384,
        key="(trace_id, span_id, start_time_ns)",
        indexes=[],
        stored=_NUMBERED,
        of_trace="trace_id = (SELECT number FROM numbers WHERE trace = ?)",
    ),
    Design(name="with a service index, 8,192", page_bytes=8192, indexes=_WITH_SERVICE),
    Design(
        name="local numbers, 8,192", page_bytes=8192, stored={"resource_id": "1", "scope_id": "1"}
    ),
    Design(name="attributes without their keys, 8,192", page_bytes=8192, stored=_NO_KEYS),
    Design(name="vacuumed, 8,192", page_bytes=8192, after="VACUUM"),
]
