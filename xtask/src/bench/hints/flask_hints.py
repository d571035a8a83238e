"""A hint server as the original's: Flask, a dictionary behind a lock, and a thread that renews it."""

import json
import pathlib
import sys
import threading
import time

from flask import Flask, jsonify

app = Flask(__name__)
lock = threading.Lock()
hint = json.loads(pathlib.Path(__file__).with_name("hint.json").read_text())


def renew():
    """Twice a second, as often as `netdiag up` measures."""
    while True:
        with lock:
            hint["current_tps"] = hint["target_tps"]
            hint["sleep_seconds"] = 1.0 / hint["current_tps"]
        time.sleep(0.5)


threading.Thread(target=renew, daemon=True).start()


@app.route("/")
def index():
    with lock:
        return jsonify(hint)


if __name__ == "__main__":
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app.run(host="127.0.0.1", port=int(sys.argv[1]), threaded=True)
