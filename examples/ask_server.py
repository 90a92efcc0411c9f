"""Ask a running `headstart serve` what is in a picture: label, probability, and whether the model knows such a thing at all.

python examples/ask_server.py http://127.0.0.1:8000 cat.jpg
"""

import json
import os
import sys
import urllib.request

address, picture = sys.argv[1:]
headers = {"Content-Type": "application/octet-stream"}
if token := os.environ.get("HEADSTART_TOKEN"):
    headers["Authorization"] = f"Bearer {token}"
with open(picture, "rb") as file:
    request = urllib.request.Request(f"{address}/v1/predict?top=1", file.read(), headers)
with urllib.request.urlopen(request, timeout=60) as response:
    (answer,) = json.load(response)["predictions"]
known = "" if answer["known"] is not False else "none of these; nearest: "
print(f"{known}{answer['label']} {answer['probability']:.3f}")
