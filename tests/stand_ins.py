"""Stand-ins for the roles that `touchline dev` runs: the least that each promises to dev.

python stand_ins.py dev DATA    `touchline dev --json --data DATA` with these roles
python stand_ins.py worker      writes its key into Redis for as long as it lives
python stand_ins.py web         answers GET /healthz
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from redis import Redis

from models.errors import TouchlineError
from streams import dev


class Healthz(BaseHTTPRequestHandler):
    """200 for everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def worker() -> None:
    """Say again and again that this worker owns partitions."""
    key = f"touchline:workers:{os.environ['TOUCHLINE_INSTANCE']}"
    redis = Redis.from_url(os.environ["TOUCHLINE_REDIS"])
    while True:
        redis.set(key, json.dumps({"pid": os.getpid()}), ex=10)
        time.sleep(0.1)


def web() -> None:
    """Serve at the address that dev chose."""
    address = urlsplit(os.environ["TOUCHLINE_WEB"])
    ThreadingHTTPServer((address.hostname or "", address.port or 0), Healthz).serve_forever()


def start_dev(data: Path) -> None:
    """Run dev with the stand-ins until a signal comes."""
    roles = {name: (sys.executable, __file__, name) for name in ("worker", "web")}
    try:
        dev.run(data, as_json=True, cwd=data.parent, roles=roles)
    except TouchlineError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["worker"]:
            worker()
        case ["web"]:
            web()
        case ["dev", data]:
            start_dev(Path(data))
