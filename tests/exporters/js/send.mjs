// Sends spans with OpenTelemetry's own exporters; ../senders.py says how it is called and what it
// prints, ../scenario.py which spans it makes.

import { diag, DiagLogLevel, SpanKind, SpanStatusCode, trace, TraceFlags, createTraceState, ROOT_CONTEXT } from "@opentelemetry/api";
import { OTLPTraceExporter as GrpcExporter } from "@opentelemetry/exporter-trace-otlp-grpc";
import { OTLPTraceExporter as JsonExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as ProtoExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BasicTracerProvider, BatchSpanProcessor, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

const [what, wire, compression, endpoint, service, remoteTraceId] = process.argv.slice(2);

const EXPORTERS = { grpc: GrpcExporter, "http-json": JsonExporter, "http-proto": ProtoExporter };
const START_S = 1772366400;
const at = (ns) => [START_S, ns];
const print = (...fields) => console.log(fields.join("\t"));

const VALUES = {
  string: "GET /cart",
  "string.empty": "",
  "string.nul": "before\0after",
  "string.nul.mark": "␀ ␀0 ␀␀ \0␀",
  "string.controls": "\x01\x1b[31m\x7f\u2028",
  "string.scripts": "žluťoučký 数 𐍈 👩‍👩‍👧",
  "string.long": "x".repeat(5000),
  "key with \0 and ␀": "kept",
  true: true,
  false: false,
  int: 42,
  "int.zero": 0,
  "int.negative": -7,
  "int.last_exact": Number.MAX_SAFE_INTEGER,
  double: 0.1,
  "double.greatest": Number.MAX_VALUE,
  "double.least": Number.MIN_VALUE,
  "double.nan": NaN,
  "double.infinity": Infinity,
  "double.negative_infinity": -Infinity,
  "array.empty": [],
  "array.strings": ["a", "", "c"],
  "array.booleans": [true, false],
  "array.ints": [1, -7],
  "array.doubles": [1.5, 0.1],
  // What JavaScript alone can say: numbers have one type, arrays have holes.
  "number.whole": 3.0,
  "number.first_inexact": 2 ** 53,
  "number.beyond_int64": 1e20,
  "number.far_beyond_int64": -1e21,
  "array.holes": ["a", null, "c"],
};

function makeProvider(attributes, exporter, schemaUrl, spanLimits) {
  return new BasicTracerProvider({
    resource: resourceFromAttributes(attributes, schemaUrl ? { schemaUrl } : undefined),
    spanProcessors: [new SimpleSpanProcessor(exporter)],
    spanLimits,
  });
}

function makeSpans() {
  const collected = new InMemorySpanExporter();
  const shop = makeProvider(
    { "service.name": service, cores: 8, load: 0.5, enabled: true, tags: ["x", "y"] },
    collected,
    "https://example.com/resource/1",
  );
  const cut = makeProvider({ "service.name": `${service}-cut` }, collected, undefined, {
    attributeCountLimit: 1,
    eventCountLimit: 1,
    linkCountLimit: 1,
    attributePerEventCountLimit: 1,
    attributePerLinkCountLimit: 1,
  });
  const web = shop.getTracer("shop.web", "1.2.3", { schemaUrl: "https://example.com/scope/2" });
  const stock = shop.getTracer("shop.stock");
  const start = (key, tracer, name, kind, parent, ns, options = {}) => {
    const context = parent ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT;
    const span = tracer.startSpan(name, { kind, startTime: at(ns), ...options }, context);
    print("span", key, span.spanContext().traceId, span.spanContext().spanId);
    return span;
  };

  const root = start("root", web, "GET /cart", SpanKind.SERVER, undefined, 1);
  root.setAttributes(VALUES);
  root.setStatus({ code: SpanStatusCode.OK });

  const link = { context: root.spanContext(), attributes: { why: "retry", n: 1 } };
  const call = start("call", web, "call stock", SpanKind.CLIENT, root.spanContext(), 1_000_000, { links: [link] });
  call.addEvent("empty", at(1_500_001));
  call.addEvent("retry", { attempt: 2, wait: 0.5, "\0": "\0" }, at(2_000_003));

  const reserve = start("reserve", stock, "reserve", SpanKind.CONSUMER, call.spanContext(), 3_000_000);
  start("odd", stock, "\0 ␀ 数 👩‍👧", SpanKind.INTERNAL, reserve.spanContext(), 3_000_007).end(at(3_000_007));
  reserve.end(at(4_000_000));
  call.end(at(5_000_000));

  const notify = start("notify", stock, "notify", SpanKind.PRODUCER, root.spanContext(), 6_000_000);
  notify.addEvent("exception", { "exception.message": "no \0 address" }, at(6_000_001));
  notify.setStatus({ code: SpanStatusCode.ERROR, message: "no \0 address" });
  notify.end(at(7_000_000));
  root.end(at(12_500_001));

  const remote = {
    traceId: remoteTraceId,
    spanId: "00f067aa0ba902b7",
    traceFlags: TraceFlags.SAMPLED,
    traceState: createTraceState("vendor=a,other@tenant=b/c"),
    isRemote: true,
  };
  start("worker", web, "worker", SpanKind.CONSUMER, remote, 0, { links: [{ context: remote }] }).end(at(1));

  const two = { a: 1, b: 2 };
  const links = ["01", "02"].map((end) => ({
    context: { traceId: end.padStart(32, "0"), spanId: end.padStart(16, "0"), traceFlags: TraceFlags.NONE },
    attributes: two,
  }));
  const limited = start("limited", cut.getTracer("cut", "0"), "limited", SpanKind.INTERNAL, undefined, 0, { links });
  limited.setAttributes({ a: 1, b: 2, c: 3 });
  limited.addEvent("first", two, at(1));
  limited.addEvent("second", two, at(2));
  limited.end(at(3));

  return collected.getFinishedSpans();
}

function makeSpan() {
  const collected = new InMemorySpanExporter();
  const provider = makeProvider({ "service.name": service }, collected);
  provider.getTracer("one").startSpan("good").end();
  return collected.getFinishedSpans()[0];
}

/** The same span as it can never leave the SDK: its span id is all zeros. */
function spoil(span) {
  const context = { ...span.spanContext(), spanId: "0".repeat(16) };
  return new Proxy(span, {
    get: (target, name) => (name === "spanContext" ? () => context : Reflect.get(target, name, target)),
  });
}

function exportDirectly(exporter, spans) {
  print("exporting");
  return new Promise((resolve) => {
    exporter.export(spans, ({ code, error }) => {
      print("result", code === 0 ? "success" : "failure", JSON.stringify(error?.message ?? ""));
      resolve();
    });
  });
}

async function exportBatches(exporter) {
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ "service.name": service }),
    spanProcessors: [new BatchSpanProcessor(exporter, { scheduledDelayMillis: 50 })],
  });
  const tracer = provider.getTracer("batches");
  for (let count = 0; count < 150; count++) {
    const root = tracer.startSpan("root");
    for (let leaf = 0; leaf < 9; leaf++) {
      tracer.startSpan("leaf", {}, trace.setSpan(ROOT_CONTEXT, root)).end();
    }
    root.end();
  }
  await provider.shutdown();
  print("result", "success", '""');
}

const log = (...parts) => print("log", JSON.stringify(parts.map(String).join(" ")));
diag.setLogger({ verbose: log, debug: log, info: log, warn: log, error: log }, DiagLogLevel.WARN);

const exporter = new EXPORTERS[wire]({ url: endpoint, compression });
if (what === "every-field") await exportDirectly(exporter, makeSpans());
if (what === "one-span") await exportDirectly(exporter, [makeSpan()]);
if (what === "bad-span") await exportDirectly(exporter, [makeSpan(), spoil(makeSpan())]);
if (what === "batches") await exportBatches(exporter);
await exporter.shutdown();
