"""Strict readers of the forms that chat-trace export writes. Each raises AssertionError naming what is wrong."""
import json
import struct
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict


def perfetto(text):
    """Chrome's trace event format, as Perfetto's importer reads it. Returns slices, arrows between names, spans."""
    doc = json.loads(text)
    slices, flows, spans, names = defaultdict(list), [], Counter(), {}
    for e in doc["traceEvents"]:
        assert isinstance(e["pid"], int) and e["ph"] in "XMstfbe", e
        if e["ph"] == "M":
            names[(e["name"], e["pid"], e.get("tid"))] = e["args"]
            continue
        assert e["ts"] >= 0 and isinstance(e["tid"], int) and e["name"] and e["cat"], e
        if e["ph"] == "X":
            assert e["dur"] >= 0, e
            slices[e["pid"], e["tid"]].append(e)
        elif e["ph"] in "stf":
            assert e["bp"] == "e" and isinstance(e["id"], int) and e["id"] < 2**53, e
            flows.append(e)
        else:
            spans[e["cat"], e["id"], e["pid"], e["name"]] += 1 if e["ph"] == "b" else -1
    at = {}
    for (pid, tid), row in slices.items():
        assert ("process_name", pid, None) in names and ("thread_name", pid, tid) in names, (pid, tid)
        row.sort(key=lambda e: e["ts"])
        for a, b in zip(row, row[1:]):
            assert a["ts"] + a["dur"] <= b["ts"] + 1e-3 and a["ts"] < b["ts"], ("they hide each other", a, b)
        for e in row:
            at[pid, tid, e["ts"]] = e
    arrows, last = Counter(), {}
    for f in sorted(flows, key=lambda f: f["ts"]):
        key, here = (f["cat"], f["name"], f["id"]), at.get((f["pid"], f["tid"], f["ts"]))
        assert here, ("a flow lies on no slice", f)
        if f["ph"] == "s":
            last[key] = here
            continue
        assert key in last, ("a flow that never began", f)
        arrows[last[key]["name"], here["name"]] += 1
        if f["ph"] == "t":
            last[key] = here
    return [e for row in slices.values() for e in row], arrows, spans


def otlp(text):
    """OTLP JSON lines by the proto's JSON mapping. Returns {trace id: [spans]}."""
    span_keys = {"traceId", "spanId", "parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano",
                 "attributes", "events", "droppedEventsCount", "status"}
    traces = {}
    for line in text.splitlines():
        doc = json.loads(line)
        assert set(doc) == {"resourceSpans"}, doc.keys()
        spans = []
        for rs in doc["resourceSpans"]:
            assert set(rs) == {"resource", "scopeSpans"} and rs["resource"]["attributes"]
            for ss in rs["scopeSpans"]:
                spans += ss["spans"]
        for s in spans:
            assert set(s) <= span_keys, set(s) - span_keys
            assert len(bytes.fromhex(s["traceId"])) == 16 and len(bytes.fromhex(s["spanId"])) == 8
            assert isinstance(s["startTimeUnixNano"], str) and int(s["endTimeUnixNano"]) >= int(s["startTimeUnixNano"])
            assert s["kind"] in (2, 4, 5) and s["status"]["code"] in (0, 1, 2), s
            for a in s["attributes"] + [a for e in s["events"] for a in e["attributes"]]:
                (kind, value), = a["value"].items()
                assert a["key"] and kind in ("stringValue", "intValue") and isinstance(value, str), a
        ids = {s["spanId"] for s in spans}
        assert len(ids) == len(spans) and len({s["traceId"] for s in spans}) == 1
        assert [s["name"] for s in spans if "parentSpanId" not in s] == ["message"]
        assert all(s.get("parentSpanId", s["spanId"]) in ids for s in spans)
        assert spans[0]["traceId"] not in traces, "a message has one line"
        traces[spans[0]["traceId"]] = spans
    return traces


def pcapng(data):
    """Blocks, options, interfaces, packets: [(interface name, time, data, comment)]."""
    at, interfaces, packets = 0, [], []
    while at < len(data):
        kind, n = struct.unpack_from("<II", data, at)
        assert n % 4 == 0 and n >= 12 and at + n <= len(data), at
        assert struct.unpack_from("<I", data, at + n - 4)[0] == n, at
        body, options = data[at + 8:at + n - 4], {}
        assert at or kind == 0x0A0D0D0A
        if kind == 0x0A0D0D0A:
            assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
            o = 16
        elif kind == 1:
            link, _, snap = struct.unpack_from("<HHI", body)
            assert link in (101, 252) and snap == 0
            o = 8
        else:
            assert kind == 6, kind
            face, high, low, caught, wire = struct.unpack_from("<IIIII", body)
            assert face < len(interfaces) and caught <= wire
            o = 20 + (caught + 3) // 4 * 4
        while o < len(body):
            code, length = struct.unpack_from("<HH", body, o)
            assert o + 4 + length <= len(body)
            if not code:
                break
            options[code] = body[o + 4:o + 4 + length]
            o += 4 + (length + 3) // 4 * 4
        if kind == 1:
            assert options[9] == b"\x09"
            interfaces.append(options[2].decode())
        elif kind == 6:
            packets.append((interfaces[face], high << 32 | low, body[20:20 + caught], options[1].decode()))
        at += n
    assert len(set(interfaces)) == len(interfaces)
    return interfaces, packets


def junit(text):
    """What JUnit readers agree on (Jenkins' junit-10.xsd). Returns {name: None, 'failure' or 'error'}."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    cases = {}
    for suite in root:
        assert suite.tag == "testsuite" and {"name", "tests", "failures", "errors"} <= set(suite.attrib)
        found = Counter()
        for el in suite:
            assert el.tag in ("properties", "testcase"), el.tag
            if el.tag == "properties":
                assert all(p.tag == "property" and set(p.attrib) == {"name", "value"} for p in el)
                continue
            assert "name" in el.attrib and len(el) <= 1, el.attrib
            kind = el[0].tag if len(el) else None
            assert kind in (None, "failure", "error") and (kind is None or el[0].attrib["message"])
            found[kind] += 1
            cases[el.attrib["name"]] = kind
        assert (int(suite.attrib["tests"]), int(suite.attrib["failures"]), int(suite.attrib["errors"])) == \
            (sum(found.values()), found["failure"], found["error"])
    return cases
