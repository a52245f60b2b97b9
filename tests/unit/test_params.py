from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from msgtrace.api import params
from msgtrace.api.cursors import format_cursor, parse_cursor
from msgtrace.errors import InvalidParameter
from msgtrace.model.search import Cursor, TraceFilter, TraceSearch
from msgtrace.model.span import TraceId
from msgtrace.model.units import MAX_INT64

Pairs = list[tuple[str, str]]

CURSOR = Cursor(1_772_366_400_000_000_000, TraceId(bytes(range(16))))


def request(*pairs: tuple[str, str], path: Mapping[str, str] | None = None) -> Request:
    query_string = urlencode(pairs).encode()
    return Request({"type": "http", "query_string": query_string, "path_params": path or {}})


def filter_of(*pairs: tuple[str, str]) -> TraceFilter:
    return params.trace_filter(request(*pairs))


def test_no_parameters_ask_for_the_first_page_of_everything() -> None:
    assert params.trace_search(request()) == TraceSearch()


def test_every_filter_reaches_the_search() -> None:
    search = params.trace_search(
        request(
            ("service_name", "shop"),
            ("workflow_name", "checkout"),
            ("name", "GET /cart"),
            ("session_id", "s1"),
            ("user_id", "u1"),
            ("model", "m1"),
            ("has_errors", "true"),
            ("min_duration_ms", "1.5"),
            ("max_duration_ms", "2"),
            ("start", "2026-03-01T12:00:00.000000001Z"),
            ("end", "1772366400000000002"),
            ("attr", "http.method=GET"),
            ("attr", "note=a=b"),
            ("q", "Cart"),
            ("limit", "7"),
            ("cursor", format_cursor(CURSOR)),
        )
    )

    assert search == TraceSearch(
        filter=TraceFilter(
            service_name="shop",
            workflow_name="checkout",
            name="GET /cart",
            session_id="s1",
            user_id="u1",
            model="m1",
            has_errors=True,
            min_duration_ns=1_500_000,
            max_duration_ns=2_000_000,
            start_ns=1_772_366_400_000_000_001,
            end_ns=1_772_366_400_000_000_002,
            attributes=(("http.method", "GET"), ("note", "a=b")),
            text="Cart",
        ),
        limit=7,
        after=CURSOR,
    )


def test_text_is_passed_on_as_it_is() -> None:
    text = " \0␀0 ünï%_'\"\\ "

    assert filter_of(("name", text)).name == text


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("colour", "red", "unknown parameter"),
        ("Limit", "1", "unknown parameter"),
        ("limit", "0", "whole number from 1 to 1000"),
        ("limit", "1001", "whole number from 1 to 1000"),
        ("limit", "-1", "whole number"),
        ("limit", "1.0", "whole number"),
        ("limit", "\u0663", "whole number"),
        ("limit", "", "whole number"),
        ("limit", "9" * 1000, "whole number"),
        ("offset", "-1", "whole number"),
        ("offset", str(2**63), "whole number"),
        ("has_errors", "yes", "true or false"),
        ("has_errors", "True", "true or false"),
        ("has_errors", "", "true or false"),
        ("min_duration_ms", "NaN", "milliseconds"),
        ("min_duration_ms", "Infinity", "milliseconds"),
        ("min_duration_ms", "-1", "milliseconds"),
        ("min_duration_ms", "-0", "milliseconds"),
        ("min_duration_ms", "1_0", "milliseconds"),
        ("min_duration_ms", " 1", "milliseconds"),
        ("min_duration_ms", "", "milliseconds"),
        ("max_duration_ms", "1e999", "milliseconds"),
        ("max_duration_ms", "1e999999999999", "milliseconds"),
        ("max_duration_ms", "9223372036854.775808", "milliseconds"),
        ("start", "yesterday", "RFC 3339"),
        ("start", "2026-03-01", "RFC 3339"),
        ("start", "2026-03-01T12:00:00", "RFC 3339"),
        ("start", "2026-13-01T12:00:00Z", "RFC 3339"),
        ("start", "1969-12-31T23:59:59Z", "RFC 3339"),
        ("end", str(2**63), "RFC 3339"),
        ("end", "-1", "RFC 3339"),
        ("end", "", "RFC 3339"),
        ("attr", "key", "key=value"),
        ("attr", "=value", "key=value"),
        ("attr", "", "key=value"),
        ("cursor", "", "next_cursor"),
        ("cursor", "abc", "next_cursor"),
        ("cursor", "+" * 32, "next_cursor"),
        ("cursor", "_" * 32, "next_cursor"),
        ("service_name", "", "must not be empty"),
        ("q", "", "must not be empty"),
        ("name", "x" * 1025, "at most 1024 bytes"),
        ("q", "ü" * 513, "at most 1024 bytes"),
        ("attr", "key=" + "x" * 1021, "at most 1024 bytes"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(name: str, value: str, problem: str) -> None:
    with pytest.raises(InvalidParameter, match=problem) as refusal:
        params.trace_search(request((name, value)))

    assert str(refusal.value).startswith(f"{name}: ")


@pytest.mark.parametrize("name", sorted(params.FILTER_PARAMETERS - params.REPEATABLE))
def test_a_repeated_filter_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{name}: must be given only once$"):
        params.trace_search(request((name, "1"), (name, "1")))


def test_the_shown_name_of_an_unknown_parameter_is_bounded() -> None:
    with pytest.raises(InvalidParameter) as refusal:
        params.trace_search(request(("x" * 10_000, "1")))

    assert len(str(refusal.value)) < 100


def test_text_of_just_one_kibibyte_is_taken() -> None:
    assert filter_of(("q", "ü" * 512)).text == "ü" * 512


def test_an_attribute_may_be_asked_for_with_an_empty_value() -> None:
    assert filter_of(("attr", "note=")).attributes == (("note", ""),)


def test_sixteen_attributes_are_taken_and_seventeen_refused() -> None:
    pairs = [("attr", f"key{number}=1") for number in range(17)]

    assert len(filter_of(*pairs[:16]).attributes) == 16
    with pytest.raises(InvalidParameter, match=r"^attr: "):
        filter_of(*pairs)


def test_offset_and_cursor_exclude_each_other() -> None:
    with pytest.raises(InvalidParameter, match=r"^offset: "):
        params.trace_search(request(("cursor", format_cursor(CURSOR)), ("offset", "0")))


@pytest.mark.parametrize(
    ("text", "at_least_ns", "at_most_ns"),
    [
        ("0", 0, 0),
        ("12.5", 12_500_000, 12_500_000),
        ("1e3", 1_000_000_000, 1_000_000_000),
        ("0.000001", 1, 1),
        ("0.0000015", 2, 1),
        ("1e-9", 1, 0),
        ("9223372036854.775807", MAX_INT64, MAX_INT64),
    ],
)
def test_milliseconds_become_exact_nanoseconds_inside_the_bound(
    text: str, at_least_ns: int, at_most_ns: int
) -> None:
    found = filter_of(("min_duration_ms", text), ("max_duration_ms", text))

    assert (found.min_duration_ns, found.max_duration_ns) == (at_least_ns, at_most_ns)


@given(st.integers(0, 2**52))
def test_a_duration_that_the_service_showed_finds_its_trace(duration_ns: int) -> None:
    shown = repr(duration_ns / 1_000_000).replace("+", "")

    assert filter_of(("min_duration_ms", shown)).min_duration_ns == duration_ns


@given(st.integers(0, MAX_INT64), st.binary(min_size=16, max_size=16))
def test_a_cursor_survives_its_text_form(start_time_ns: int, trace_id: bytes) -> None:
    cursor = Cursor(start_time_ns, TraceId(trace_id))
    text = format_cursor(cursor)

    assert parse_cursor(text) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()


def test_stats_take_no_page() -> None:
    with pytest.raises(InvalidParameter, match=r"^limit: unknown parameter$"):
        params.trace_filter(request(("limit", "1")))


def test_an_endpoint_without_parameters_refuses_any() -> None:
    params.refuse_all(request())
    with pytest.raises(InvalidParameter, match=r"^verbose: unknown parameter$"):
        params.refuse_all(request(("verbose", "1")))


def test_a_trace_id_is_hex_in_any_case() -> None:
    text = "0af7651916cd43dd8448eb211c80319c"

    assert params.trace_id(request(path={"trace_id": text.upper()})) == bytes.fromhex(text)


@pytest.mark.parametrize(
    "text",
    ["", "0a", "g" * 32, "0" * 31, "0" * 33, "00 " * 10 + "00", "\u0660" * 32, "0" * 32 + "\n"],
)
def test_anything_but_32_hex_digits_is_no_trace_id(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^trace_id: must be 32 hex digits$"):
        params.trace_id(request(path={"trace_id": text}))


def test_a_long_service_in_the_path_is_refused_by_name() -> None:
    with pytest.raises(InvalidParameter, match=r"^service: "):
        params.service_name(request(path={"service": "x" * 1025}))


def test_a_deletion_with_a_filter_takes_the_filter() -> None:
    deletion = params.deletion_filter(request(("service_name", "shop")))

    assert deletion == TraceFilter(service_name="shop")


def test_a_deletion_of_everything_says_so() -> None:
    assert params.deletion_filter(request(("all", "true"))) == TraceFilter()


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("all", "false")],
        [("all", "1")],
        [("all", "")],
        [("all", "true"), ("service_name", "shop")],
        [("all", "true"), ("attr", "key=value")],
    ],
)
def test_a_deletion_that_may_not_be_meant_is_refused(pairs: Pairs) -> None:
    with pytest.raises(InvalidParameter, match=r"^all: "):
        params.deletion_filter(request(*pairs))


@pytest.mark.parametrize("name", sorted(params.PAGE_PARAMETERS))
def test_a_deletion_takes_no_page(name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{name}: unknown parameter$"):
        params.deletion_filter(request(("service_name", "shop"), (name, "1")))
