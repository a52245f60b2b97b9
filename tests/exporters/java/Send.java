// Sends spans with OpenTelemetry's own exporters; ../senders.py says how it is called and what it
// prints, ../scenario.py which spans it makes.

import static io.opentelemetry.api.common.AttributeKey.booleanArrayKey;
import static io.opentelemetry.api.common.AttributeKey.doubleArrayKey;
import static io.opentelemetry.api.common.AttributeKey.doubleKey;
import static io.opentelemetry.api.common.AttributeKey.longArrayKey;
import static io.opentelemetry.api.common.AttributeKey.longKey;
import static io.opentelemetry.api.common.AttributeKey.stringArrayKey;
import static io.opentelemetry.api.common.AttributeKey.stringKey;
import static io.opentelemetry.api.common.AttributeKey.valueKey;
import static java.util.concurrent.TimeUnit.NANOSECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.common.KeyValue;
import io.opentelemetry.api.common.Value;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.SpanLimits;
import io.opentelemetry.sdk.trace.data.DelegatingSpanData;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import io.opentelemetry.sdk.trace.export.SimpleSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;

public final class Send {
  static final long START_NS = 1_772_366_400_000_000_000L;
  static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

  static String service;
  static String remoteTraceId;

  public static void main(String[] arguments) {
    String what = arguments[0];
    service = arguments[4];
    remoteTraceId = arguments[5];
    SpanExporter exporter = makeExporter(arguments[1], arguments[2], arguments[3]);
    switch (what) {
      case "every-field" -> exportDirectly(exporter, makeSpans());
      case "one-span" -> exportDirectly(exporter, List.of(makeSpan()));
      case "bad-span" -> exportDirectly(exporter, List.of(makeSpan(), spoil(makeSpan())));
      case "batches" -> exportBatches(exporter);
      default -> throw new IllegalArgumentException(what);
    }
    exporter.shutdown().join(10, SECONDS);
    System.exit(0);
  }

  static SpanExporter makeExporter(String wire, String compression, String endpoint) {
    return wire.equals("grpc")
        ? OtlpGrpcSpanExporter.builder().setEndpoint(endpoint).setCompression(compression).build()
        : OtlpHttpSpanExporter.builder().setEndpoint(endpoint).setCompression(compression).build();
  }

  static void exportDirectly(SpanExporter exporter, List<SpanData> spans) {
    print("exporting");
    printResult(exporter.export(spans));
  }

  static void exportBatches(SpanExporter exporter) {
    SdkTracerProvider provider =
        SdkTracerProvider.builder()
            .setResource(Resource.create(Attributes.of(stringKey("service.name"), service)))
            .addSpanProcessor(
                BatchSpanProcessor.builder(exporter)
                    .setScheduleDelay(Duration.ofMillis(50))
                    .build())
            .build();
    Tracer tracer = provider.get("batches");
    for (int count = 0; count < 150; count++) {
      Span root = tracer.spanBuilder("root").setNoParent().startSpan();
      for (int leaf = 0; leaf < 9; leaf++) {
        tracer.spanBuilder("leaf").setParent(Context.root().with(root)).startSpan().end();
      }
      root.end();
    }
    printResult(provider.shutdown());
  }

  static Attributes values() {
    return Attributes.builder()
        .put("string", "GET /cart")
        .put("string.empty", "")
        .put("string.nul", "before\0after")
        .put("string.nul.mark", "␀ ␀0 ␀␀ \0␀")
        .put("string.controls", "\001\033[31m\177\u2028")
        .put("string.scripts", "žluťoučký 数 𐍈 👩‍👩‍👧")
        .put("string.long", "x".repeat(5000))
        .put("key with \0 and ␀", "kept")
        .put("true", true)
        .put("false", false)
        .put("int", 42)
        .put("int.zero", 0)
        .put("int.negative", -7)
        .put("int.last_exact", (1L << 53) - 1)
        .put("double", 0.1)
        .put("double.greatest", Double.MAX_VALUE)
        .put("double.least", Double.MIN_VALUE)
        .put("double.nan", Double.NaN)
        .put("double.infinity", Double.POSITIVE_INFINITY)
        .put("double.negative_infinity", Double.NEGATIVE_INFINITY)
        .put(stringArrayKey("array.empty"), List.of())
        .put(stringArrayKey("array.strings"), List.of("a", "", "c"))
        .put(booleanArrayKey("array.booleans"), List.of(true, false))
        .put(longArrayKey("array.ints"), List.of(1L, -7L))
        .put(doubleArrayKey("array.doubles"), List.of(1.5, 0.1))
        // What typed languages can say too.
        .put("int.least", Long.MIN_VALUE)
        .put("int.greatest", Long.MAX_VALUE)
        .put("double.whole", 3.0)
        .put("double.negative_zero", -0.0)
        .put(valueKey("bytes"), Value.of(new byte[] {0, 1, (byte) 0xfe, (byte) 0xff}))
        .put(
            valueKey("array.mixed"),
            Value.of(Value.of("a"), Value.of(1), Value.of(1.0), Value.of(true)))
        .put(
            valueKey("map"),
            Value.of(
                KeyValue.of("a", Value.of(KeyValue.of("b", Value.of(new byte[] {0})))),
                KeyValue.of("n", Value.of(1))))
        .build();
  }

  static List<SpanData> makeSpans() {
    Collector collected = new Collector();
    SdkTracerProvider shop =
        SdkTracerProvider.builder()
            .setResource(
                Resource.create(
                    Attributes.builder()
                        .put("service.name", service)
                        .put("cores", 8)
                        .put("load", 0.5)
                        .put("enabled", true)
                        .put("tags", "x", "y")
                        .build(),
                    "https://example.com/resource/1"))
            .addSpanProcessor(SimpleSpanProcessor.create(collected))
            .build();
    SdkTracerProvider cut =
        SdkTracerProvider.builder()
            .setResource(Resource.create(Attributes.of(stringKey("service.name"), service + "-cut")))
            .setSpanLimits(
                SpanLimits.builder()
                    .setMaxNumberOfAttributes(1)
                    .setMaxNumberOfEvents(1)
                    .setMaxNumberOfLinks(1)
                    .setMaxNumberOfAttributesPerEvent(1)
                    .setMaxNumberOfAttributesPerLink(1)
                    .build())
            .addSpanProcessor(SimpleSpanProcessor.create(collected))
            .build();
    Tracer web =
        shop.tracerBuilder("shop.web")
            .setInstrumentationVersion("1.2.3")
            .setSchemaUrl("https://example.com/scope/2")
            .build();
    Tracer stock = shop.get("shop.stock");

    Span root = start("root", child(web, "GET /cart", SpanKind.SERVER, null), 1);
    root.setAllAttributes(values());
    root.setStatus(StatusCode.OK);

    Attributes why = Attributes.of(stringKey("why"), "retry", longKey("n"), 1L);
    Span call =
        start(
            "call",
            child(web, "call stock", SpanKind.CLIENT, root).addLink(root.getSpanContext(), why),
            1_000_000);
    call.addEvent("empty", START_NS + 1_500_001, NANOSECONDS);
    call.addEvent(
        "retry",
        Attributes.of(longKey("attempt"), 2L, doubleKey("wait"), 0.5, stringKey("\0"), "\0"),
        START_NS + 2_000_003,
        NANOSECONDS);

    Span reserve = start("reserve", child(stock, "reserve", SpanKind.CONSUMER, call), 3_000_000);
    Span odd = start("odd", child(stock, "\0 ␀ 数 👩‍👧", SpanKind.INTERNAL, reserve), 3_000_007);
    end(odd, 3_000_007);
    end(reserve, 4_000_000);
    end(call, 5_000_000);

    Span notify = start("notify", child(stock, "notify", SpanKind.PRODUCER, root), 6_000_000);
    notify.addEvent(
        "exception",
        Attributes.of(stringKey("exception.message"), "no \0 address"),
        START_NS + 6_000_001,
        NANOSECONDS);
    notify.setStatus(StatusCode.ERROR, "no \0 address");
    end(notify, 7_000_000);
    end(root, 12_500_001);

    TraceState state =
        TraceState.builder().put("other@tenant", "b/c").put("vendor", "a").build();
    SpanContext remote =
        SpanContext.createFromRemoteParent(
            remoteTraceId, "00f067aa0ba902b7", TraceFlags.getSampled(), state);
    end(
        start(
            "worker",
            child(web, "worker", SpanKind.CONSUMER, Span.wrap(remote)).addLink(remote),
            0),
        1);

    Attributes two = Attributes.of(longKey("a"), 1L, longKey("b"), 2L);
    Span limited =
        start(
            "limited",
            child(cut.get("cut", "0"), "limited", SpanKind.INTERNAL, null)
                .addLink(numbered(1), two)
                .addLink(numbered(2), two),
            0);
    limited.setAttribute("a", 1).setAttribute("b", 2).setAttribute("c", 3);
    limited.addEvent("first", two, START_NS + 1, NANOSECONDS);
    limited.addEvent("second", two, START_NS + 2, NANOSECONDS);
    end(limited, 3);

    return collected.spans;
  }

  static SpanBuilder child(Tracer tracer, String name, SpanKind kind, Span parent) {
    SpanBuilder builder = tracer.spanBuilder(name).setSpanKind(kind);
    return parent == null ? builder.setNoParent() : builder.setParent(Context.root().with(parent));
  }

  static Span start(String key, SpanBuilder builder, long ns) {
    Span span = builder.setStartTimestamp(START_NS + ns, NANOSECONDS).startSpan();
    SpanContext context = span.getSpanContext();
    print("span", key, context.getTraceId(), context.getSpanId());
    return span;
  }

  static void end(Span span, long ns) {
    span.end(START_NS + ns, NANOSECONDS);
  }

  static SpanContext numbered(int number) {
    String traceId = String.format("%032x", number);
    String spanId = String.format("%016x", number);
    return SpanContext.create(traceId, spanId, TraceFlags.getDefault(), TraceState.getDefault());
  }

  static SpanData makeSpan() {
    Collector collected = new Collector();
    SdkTracerProvider.builder()
        .setResource(Resource.create(Attributes.of(stringKey("service.name"), service)))
        .addSpanProcessor(SimpleSpanProcessor.create(collected))
        .build()
        .get("one")
        .spanBuilder("good")
        .startSpan()
        .end();
    return collected.spans.get(0);
  }

  /** The same span as it can never leave the SDK: its ids are all zeros. */
  static SpanData spoil(SpanData span) {
    return new DelegatingSpanData(span) {
      @Override
      public SpanContext getSpanContext() {
        return SpanContext.getInvalid();
      }
    };
  }

  static void printResult(CompletableResultCode code) {
    boolean isSuccess = code.join(30, SECONDS).isSuccess();
    print("result", isSuccess ? "success" : "failure", "\"\"");
  }

  static void print(String... fields) {
    OUT.println(String.join("\t", fields));
  }

  /** Keeps what it is given. */
  static final class Collector implements SpanExporter {
    final List<SpanData> spans = new ArrayList<>();

    @Override
    public CompletableResultCode export(Collection<SpanData> exported) {
      spans.addAll(exported);
      return CompletableResultCode.ofSuccess();
    }

    @Override
    public CompletableResultCode flush() {
      return CompletableResultCode.ofSuccess();
    }

    @Override
    public CompletableResultCode shutdown() {
      return CompletableResultCode.ofSuccess();
    }
  }
}
