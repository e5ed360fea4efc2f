"""A scorer in an environment of its own, behind diffalign's protocol: copy this file there and write `score`.

    python own_reward_server.py --port 8901
    DIFFALIGN_REWARD_URL=http://127.0.0.1:8901 diffalign rewards check remote:warmth

It needs Python and Pillow, neither torch nor diffalign. docs/rewards/server.md has the protocol.
"""

import argparse
import base64
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image, ImageStat

NAME = "warmth"
REWARD = {"name": NAME, "scope": "pointwise", "range": [-1.0, 1.0], "needs": [], "version": "1"}
LIMITS = {"body_bytes": 64 * 2**20, "images": 256, "pixels": 4096 * 4096}


def score(image: Image.Image, prompt: str, metadata: dict) -> float | None:
    """Your scorer: a number, higher is better, or None where the image cannot be scored."""
    red, _, blue = ImageStat.Stat(image).mean
    return (red - blue) / 255


def answer(request: dict) -> dict:
    """The answer to a scoring request; what fails for one image is null for it alone."""
    scores, errors = [], {}
    for i, (file, prompt) in enumerate(zip(request["images"], request["prompts"], strict=True)):
        try:
            image = Image.open(io.BytesIO(base64.b64decode(file)), formats=["PNG"]).convert("RGB")
            scores.append(score(image, prompt, request["metadata"][i]))
        except Exception as error:
            scores.append(None)
            errors[str(i)] = repr(error)
    return {"id": request["id"], "reward": NAME, "scores": scores, "errors": errors}


class Handler(BaseHTTPRequestHandler):
    """The two routes."""

    def do_GET(self) -> None:
        """Says what is here."""
        listing = {"protocol": 1, "rewards": [REWARD], "encodings": ["png"], "limits": LIMITS}
        self.reply(200, listing) if self.path == "/rewards" else self.reply(404, {"error": "GET /rewards"})

    def do_POST(self) -> None:
        """Scores."""
        length = int(self.headers.get("Content-Length", -1))
        if self.path != "/score" or not 0 <= length <= LIMITS["body_bytes"]:
            return self.reply(400, {"error": f"POST /score with a body of at most {LIMITS['body_bytes']} bytes"})
        try:
            self.reply(200, answer(json.loads(self.rfile.read(length))))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            self.reply(400, {"error": repr(error)})

    def reply(self, status: int, content: dict) -> None:
        """Sends JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8901)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    print(f"serving {NAME} at http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
