"""Records HTTP requests in the current folder, and answers all with one status: see common.sh."""
import http.server
import sys

STATUS = int(sys.argv[1])
HEADERS = [header.split(": ", 1) for header in sys.argv[2:]]


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        chunks = []
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        else:
            chunks.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        with open("body", "wb") as file:
            file.write(b"".join(chunks))
        with open("headers", "a") as file:
            file.write(str(self.headers))
        with open("requests", "a") as file:
            file.write(f"{self.command} {self.path}\n")
        # A redirect leads to a page that exists.
        status = 200 if self.path == "/elsewhere" else STATUS
        self.send_response(status)
        for name, value in HEADERS if status == STATUS else []:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_POST = do_DELETE = handle_any

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
with open("port", "w") as file:
    file.write(str(server.server_port))
server.serve_forever()
