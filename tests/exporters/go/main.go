// Send sends spans with OpenTelemetry's own exporters; ../senders.py says how it is called and what
// it prints, ../scenario.py which spans it makes.
package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

var what, wire, compression, endpoint, service, remoteTraceID = os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6]

var background = context.Background()

func main() {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { printLine("log", fmt.Sprintf("%q", err.Error())) }))
	exporter := must(makeExporter())
	switch what {
	case "every-field":
		exportDirectly(exporter, makeSpans())
	case "one-span":
		exportDirectly(exporter, tracetest.SpanStubs{makeSpan()})
	case "bad-span":
		exportDirectly(exporter, tracetest.SpanStubs{makeSpan(), spoil(makeSpan())})
	case "batches":
		exportBatches(exporter)
	}
	check(exporter.Shutdown(background))
}

func makeExporter() (sdktrace.SpanExporter, error) {
	// The first wait is short, so that a wait of a second is one that the server has asked for.
	const first, longest, total = 100 * time.Millisecond, 500 * time.Millisecond, 10 * time.Second
	if wire == "grpc" {
		options := []otlptracegrpc.Option{
			otlptracegrpc.WithEndpointURL(endpoint),
			otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: first, MaxInterval: longest, MaxElapsedTime: total}),
		}
		if compression == "gzip" {
			options = append(options, otlptracegrpc.WithCompressor("gzip"))
		}
		return otlptracegrpc.New(background, options...)
	}
	coding := map[string]otlptracehttp.Compression{"none": otlptracehttp.NoCompression, "gzip": otlptracehttp.GzipCompression}
	return otlptracehttp.New(background,
		otlptracehttp.WithEndpointURL(endpoint),
		otlptracehttp.WithCompression(coding[compression]),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: first, MaxInterval: longest, MaxElapsedTime: total}))
}

func exportDirectly(exporter sdktrace.SpanExporter, spans tracetest.SpanStubs) {
	printLine("exporting")
	printResult(exporter.ExportSpans(background, spans.Snapshots()))
}

func exportBatches(exporter sdktrace.SpanExporter) {
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", service))),
		sdktrace.WithBatcher(exporter, sdktrace.WithBatchTimeout(50*time.Millisecond)))
	tracer := provider.Tracer("batches")
	for range 150 {
		ctx, root := tracer.Start(background, "root")
		for range 9 {
			_, leaf := tracer.Start(ctx, "leaf")
			leaf.End()
		}
		root.End()
	}
	printResult(provider.Shutdown(background))
}

func values() []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("string", "GET /cart"),
		attribute.String("string.empty", ""),
		attribute.String("string.nul", "before\x00after"),
		attribute.String("string.nul.mark", "␀ ␀0 ␀␀ \x00␀"),
		attribute.String("string.controls", "\x01\x1b[31m\x7f\u2028"),
		attribute.String("string.scripts", "žluťoučký 数 𐍈 👩‍👩‍👧"),
		attribute.String("string.long", strings.Repeat("x", 5000)),
		attribute.String("key with \x00 and ␀", "kept"),
		attribute.Bool("true", true),
		attribute.Bool("false", false),
		attribute.Int("int", 42),
		attribute.Int("int.zero", 0),
		attribute.Int("int.negative", -7),
		attribute.Int("int.last_exact", 1<<53-1),
		attribute.Float64("double", 0.1),
		attribute.Float64("double.greatest", math.MaxFloat64),
		attribute.Float64("double.least", math.SmallestNonzeroFloat64),
		attribute.Float64("double.nan", math.NaN()),
		attribute.Float64("double.infinity", math.Inf(1)),
		attribute.Float64("double.negative_infinity", math.Inf(-1)),
		attribute.StringSlice("array.empty", []string{}),
		attribute.StringSlice("array.strings", []string{"a", "", "c"}),
		attribute.BoolSlice("array.booleans", []bool{true, false}),
		attribute.IntSlice("array.ints", []int{1, -7}),
		attribute.Float64Slice("array.doubles", []float64{1.5, 0.1}),
		// What typed languages can say too.
		attribute.Int64("int.least", math.MinInt64),
		attribute.Int64("int.greatest", math.MaxInt64),
		attribute.Float64("double.whole", 3),
		attribute.Float64("double.negative_zero", math.Copysign(0, -1)),
		attribute.ByteSlice("bytes", []byte{0, 1, 0xfe, 0xff}),
		attribute.Slice("array.mixed", attribute.StringValue("a"), attribute.Int64Value(1), attribute.Float64Value(1), attribute.BoolValue(true)),
		attribute.Map("map", attribute.Map("a", attribute.ByteSlice("b", []byte{0})), attribute.Int("n", 1)),
	}
}

func makeProvider(recorder *tracetest.InMemoryExporter, about *resource.Resource, limits sdktrace.SpanLimits) *sdktrace.TracerProvider {
	return sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithSyncer(recorder), sdktrace.WithRawSpanLimits(limits))
}

func makeSpans() tracetest.SpanStubs {
	collected := tracetest.NewInMemoryExporter()
	shop := makeProvider(collected, resource.NewWithAttributes("https://example.com/resource/1",
		attribute.String("service.name", service), attribute.Int("cores", 8), attribute.Float64("load", 0.5),
		attribute.Bool("enabled", true), attribute.StringSlice("tags", []string{"x", "y"})), sdktrace.NewSpanLimits())
	cut := makeProvider(collected, resource.NewSchemaless(attribute.String("service.name", service+"-cut")), sdktrace.SpanLimits{
		AttributeValueLengthLimit: -1, AttributeCountLimit: 1, EventCountLimit: 1, LinkCountLimit: 1,
		AttributePerEventCountLimit: 1, AttributePerLinkCountLimit: 1})
	web := shop.Tracer("shop.web", trace.WithInstrumentationVersion("1.2.3"), trace.WithSchemaURL("https://example.com/scope/2"),
		trace.WithInstrumentationAttributes(attribute.String("tier", "web"), attribute.Int("weight", 2)))
	stock := shop.Tracer("shop.stock")

	rootContext, root := start("root", web, background, "GET /cart", trace.SpanKindServer, 1)
	root.SetAttributes(values()...)
	root.SetStatus(codes.Ok, "")

	link := trace.Link{SpanContext: root.SpanContext(), Attributes: []attribute.KeyValue{attribute.String("why", "retry"), attribute.Int("n", 1)}}
	callContext, call := start("call", web, rootContext, "call stock", trace.SpanKindClient, 1_000_000, trace.WithLinks(link))
	call.AddEvent("empty", trace.WithTimestamp(at(1_500_001)))
	call.AddEvent("retry", trace.WithTimestamp(at(2_000_003)), trace.WithAttributes(
		attribute.Int("attempt", 2), attribute.Float64("wait", 0.5), attribute.String("\x00", "\x00")))

	reserveContext, reserve := start("reserve", stock, callContext, "reserve", trace.SpanKindConsumer, 3_000_000)
	_, odd := start("odd", stock, reserveContext, "\x00 ␀ 数 👩‍👧", trace.SpanKindInternal, 3_000_007)
	end(odd, 3_000_007)
	end(reserve, 4_000_000)
	end(call, 5_000_000)

	_, notify := start("notify", stock, rootContext, "notify", trace.SpanKindProducer, 6_000_000)
	notify.AddEvent("exception", trace.WithTimestamp(at(6_000_001)), trace.WithAttributes(attribute.String("exception.message", "no \x00 address")))
	notify.SetStatus(codes.Error, "no \x00 address")
	end(notify, 7_000_000)
	end(root, 12_500_001)

	remote := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: must(trace.TraceIDFromHex(remoteTraceID)), SpanID: must(trace.SpanIDFromHex("00f067aa0ba902b7")),
		TraceFlags: trace.FlagsSampled, TraceState: must(trace.ParseTraceState("vendor=a,other@tenant=b/c")), Remote: true})
	_, worker := start("worker", web, trace.ContextWithRemoteSpanContext(background, remote), "worker", trace.SpanKindConsumer, 0,
		trace.WithLinks(trace.Link{SpanContext: remote}))
	end(worker, 1)

	two := []attribute.KeyValue{attribute.Int("a", 1), attribute.Int("b", 2)}
	links := []trace.Link{{SpanContext: numbered(1), Attributes: two}, {SpanContext: numbered(2), Attributes: two}}
	_, limited := start("limited", cut.Tracer("cut", trace.WithInstrumentationVersion("0")), background, "limited", trace.SpanKindInternal, 0,
		trace.WithLinks(links...))
	limited.SetAttributes(append(two, attribute.Int("c", 3))...)
	limited.AddEvent("first", trace.WithTimestamp(at(1)), trace.WithAttributes(two...))
	limited.AddEvent("second", trace.WithTimestamp(at(2)), trace.WithAttributes(two...))
	end(limited, 3)

	return collected.GetSpans()
}

func start(key string, tracer trace.Tracer, parent context.Context, name string, kind trace.SpanKind, ns int64, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	ctx, span := tracer.Start(parent, name, append(options, trace.WithSpanKind(kind), trace.WithTimestamp(at(ns)))...)
	printLine("span", key, span.SpanContext().TraceID().String(), span.SpanContext().SpanID().String())
	return ctx, span
}

func end(span trace.Span, ns int64) {
	span.End(trace.WithTimestamp(at(ns)))
}

func at(ns int64) time.Time {
	return time.Unix(1_772_366_400, ns)
}

func numbered(number byte) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{15: number}, SpanID: trace.SpanID{7: number}})
}

func makeSpan() tracetest.SpanStub {
	collected := tracetest.NewInMemoryExporter()
	about := resource.NewSchemaless(attribute.String("service.name", service))
	_, span := makeProvider(collected, about, sdktrace.NewSpanLimits()).Tracer("one").Start(background, "good")
	span.End()
	return collected.GetSpans()[0]
}

// spoil makes a span that can never leave the SDK: its span id is all zeros.
func spoil(span tracetest.SpanStub) tracetest.SpanStub {
	span.SpanContext = span.SpanContext.WithSpanID(trace.SpanID{})
	return span
}

func printResult(err error) {
	if err != nil {
		printLine("result", "failure", fmt.Sprintf("%q", err.Error()))
		return
	}
	printLine("result", "success", `""`)
}

func printLine(fields ...string) {
	fmt.Println(strings.Join(fields, "\t"))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
