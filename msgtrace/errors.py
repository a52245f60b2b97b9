"""Every error msgtrace raises on purpose. The split answers: may the sender resend?

MsgtraceError
├── RequestError            no, the request itself is wrong
│   ├── MalformedRequest        the bytes do not decode
│   ├── RequestTooLarge         over the size limit, before or after inflating
│   ├── UnsupportedMediaType    a Content-Type that the receiver does not read
│   ├── UnsupportedCompression  a Content-Encoding that the receiver does not read
│   ├── SignalNotStored         metrics, logs or profiles
│   ├── WrongMessageCount       a gRPC call with no message, or with several
│   ├── InvalidParameter        a query parameter or id, named
│   ├── TraceNotFound           no such trace
│   ├── SpanNotFound            no such span in the trace
│   └── SessionNotFound         no trace of such a session
├── Unavailable             yes, after `retry_after_s`
│   ├── Overloaded              the queue is full, or requests under way take too much memory
│   ├── MessageTooSlow          a gRPC message that did not arrive in time
│   ├── StorageUnavailable      the database is busy, restarting or gone
│   │   ├── DatabaseStalled             it neither commits nor refuses
│   │   └── SpillUnavailable            and so is the local disk that replaces it
│   └── QueryTimeout            a read ran longer than its limit
├── StorageError            no, and it is our fault
│   ├── DataRefused             the database takes writes, but not this data
│   └── NotSupported            this kind of database has no such thing
└── ConfigError             raised before the first port opens; the operator acts
    ├── InvalidSetting          a setting that cannot be used, named
    ├── PortUnavailable         a port that cannot be bound
    ├── DatabaseUnusable        a database that cannot be opened as it is
    └── SchemaMismatch          migrations pending, changed, or newer than this program
"""

from __future__ import annotations


class MsgtraceError(Exception):
    """Root of all errors raised on purpose.

    Its text is one clear sentence for the person who reads it.
    """


class RequestError(MsgtraceError):
    """The request cannot succeed as it is; resending it is useless."""


class MalformedRequest(RequestError):
    """The bytes are not what their Content-Type says."""


class RequestTooLarge(RequestError):
    """The request is over a size limit."""


class UnsupportedMediaType(RequestError):
    """The Content-Type is missing or not one that the receiver reads."""


class UnsupportedCompression(RequestError):
    """The Content-Encoding is not one that the receiver reads."""


class SignalNotStored(RequestError):
    """An export of metrics, logs or profiles; the text says what to set."""


class WrongMessageCount(RequestError):
    """A gRPC call has another number of messages than one."""


class InvalidParameter(RequestError):
    """A parameter of a query cannot be used. `name` is the parameter as the client spelled it."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name


class TraceNotFound(RequestError):
    """No span of the trace is stored. `trace_id` is lowercase hex."""

    def __init__(self, trace_id: str) -> None:
        super().__init__(f"trace {trace_id} not found")
        self.trace_id = trace_id


class SpanNotFound(RequestError):
    """The span is not stored in the trace. `span_id` is lowercase hex."""

    def __init__(self, span_id: str) -> None:
        super().__init__(f"span {span_id} not found in the trace")


class SessionNotFound(RequestError):
    """No trace of the session is stored."""

    def __init__(self) -> None:
        super().__init__("session not found")


class Unavailable(MsgtraceError):
    """Nothing was stored; the same request may succeed after `retry_after_s`.

    One second: SDKs give an export 10 s in all and drop the batch when told to wait longer than
    they have left.
    """

    retry_after_s = 1


class Overloaded(Unavailable):
    """The queue of decoded spans is full, or requests under way take too much memory."""


class MessageTooSlow(Unavailable):
    """A gRPC message was not complete in time."""


class StorageUnavailable(Unavailable):
    """The database does not answer or does not accept writes now."""


class DatabaseStalled(StorageUnavailable):
    """Somebody has waited too long for a database that says nothing; it may not have been asked."""


class SpillUnavailable(StorageUnavailable):
    """The spill's disk is full or broken."""


class QueryTimeout(Unavailable):
    """A read was ended at its time limit."""


class StorageError(MsgtraceError):
    """The database refused for a reason that a retry does not change."""


class DataRefused(StorageError):
    """The database refuses what was to be written, and takes other data.

    Its text names the kind of refusal (SQLSTATE, constraint), never a value.
    """


class NotSupported(StorageError):
    """Something that other kinds of databases can do, and this one cannot."""


class ConfigError(MsgtraceError):
    """The program cannot start as it is configured."""


class InvalidSetting(ConfigError):
    """A setting has a value that cannot be used. `name` is the environment variable."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name


class PortUnavailable(ConfigError):
    """A port cannot be bound."""


class DatabaseUnusable(ConfigError):
    """The database cannot be opened, and waiting will not help."""


class SchemaMismatch(ConfigError):
    """The database schema and this program do not belong together."""
