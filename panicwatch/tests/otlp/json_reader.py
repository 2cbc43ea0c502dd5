# Reads OTLP's JSON with OpenTelemetry's own Python classes, which take no field that they do not know, and writes what it
# says as hexadecimal protobuf: a line for the logs, a line for the traces. Ids are hexadecimal in OTLP's JSON, where
# protobuf's own has base64.
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
