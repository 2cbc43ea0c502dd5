# Receives OTLP/HTTP over TLS and parses it with OpenTelemetry's own Python classes. Prints its port first, then one
# line of JSON per log record and per trace.
import gzip
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    return getattr(value, kind)


def attributes(of):
    return {one.key: plain(one.value) for one in of}


def logs(body):
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                yield {
                    "signal": "log",
                    "resource": attributes(resource.resource.attributes),
                    "scope": scope.scope.name,
                    "time": record.time_unix_nano,
                    "severity": record.severity_number,
                    "event": record.event_name,
                    "body": record.body.string_value,
                    "attributes": attributes(record.attributes),
                    "trace": record.trace_id.hex(),
                    "span": record.span_id.hex(),
                }


def traces(body):
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            yield {
                "signal": "trace",
                "resource": attributes(resource.resource.attributes),
                "spans": [
                    {
                        "name": span.name,
                        "trace": span.trace_id.hex(),
                        "span": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "from": span.start_time_unix_nano,
                        "to": span.end_time_unix_nano,
                        "status": span.status.code,
                        "events": [event.name for event in span.events],
                        "attributes": attributes(span.attributes),
                    }
                    for span in scope.spans
                ],
            }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        read = {"/v1/logs": logs, "/v1/traces": traces}[self.path]
        assert self.headers["Content-Type"] == "application/x-protobuf"
        assert self.headers["X-Tenant"] == "shop"
        for one in read(body):
            print(json.dumps(one), flush=True)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
