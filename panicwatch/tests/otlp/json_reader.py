# Reads OTLP/JSON with OpenTelemetry's own Python classes, which reject unknown fields, and writes the messages as
# hexadecimal protobuf: one line for the logs, one for the traces. OTLP/JSON encodes IDs in hexadecimal, where
# protobuf's JSON mapping has base64.
import base64
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def ids(of):
    if isinstance(of, list):
        return [ids(one) for one in of]
    if not isinstance(of, dict):
        return of
    names = ("traceId", "spanId", "parentSpanId")
    return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in names else ids(v) for k, v in of.items()}


document = ids(json.load(sys.stdin))
for name, message in (("resourceLogs", ExportLogsServiceRequest()), ("resourceSpans", ExportTraceServiceRequest())):
    json_format.ParseDict({name: document.pop(name)}, message)
    print(message.SerializeToString().hex())
assert not document, document
