"""Every malformed frame of schemas/vectors, at once and byte by byte."""

import json

from harness import section, that
from wire import ROOT

case = section("malformed")
VECTORS = ROOT / "schemas" / "vectors"
SENTENCES = {
    "header": (
        "flags or reserved bits that are not 0, an unknown kind, a kind that only gateways send, or a length that the"
        " kind cannot have closes with 3501"
    ),
    "verify": "Bodies of clients are always verified.",
    "field": (
        "is refused with `Error` 107, whose `message` begins with the field's name and a colon; the connection lives on"
    ),
    "connect": (
        "In `Connect`, which is answered with `Goodbye` if it is refused, it closes with 3501 and a `reason` of the"
        " same form."
    ),
    "length": (
        "a body longer than the limit of the gateway closes with 3510 (`frame too big`), whatever kind and flags say"
    ),
}


def refuses(entry, one_by_one):
    data = (VECTORS / entry["file"]).read_bytes()

    def run_vector(run):
        client = run.connect() if entry["name"] == "Connect" else run.sign_in()
        client.send_bytes(data, one_by_one)
        if "close" in entry:
            goodbye = client.goodbye(entry["close"])
            said = goodbye.reason
        else:
            frame = client.take("Error", "Goodbye")
            that(frame.name == "Error" and frame.code == entry["error"], f"{frame} instead of Error {entry['error']}")
            that(not frame.temporary, "the Error is temporary")
            said = frame.message
            client.alive()
        if entry["level"] == "field":
            that(said.startswith(entry["field"] + ":"), f"{said!r} does not begin with {entry['field']!r} and a colon")

    return run_vector


for entry in json.loads((VECTORS / "index.json").read_text(encoding="utf-8")):
    if entry["case"] != "malformed":
        continue
    size = (VECTORS / entry["file"]).stat().st_size
    level = (
        "length"
        if entry.get("close") == 3510
        else "connect" if entry["level"] == "field" and "close" in entry else entry["level"]
    )
    name = entry["file"].removeprefix("malformed_").removesuffix(".bin").replace("_", "-")
    case(name, SENTENCES[level])(refuses(entry, one_by_one=False))
    # Larger ones would only cost time.
    if size <= 1000:
        case(name + "-byte-by-byte", SENTENCES[level])(refuses(entry, one_by_one=True))
