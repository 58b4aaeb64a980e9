"""The conformance check itself: its sentences, its reader of frames, and what it makes of gateways that misbehave.

tests/conformance/run proves more of it, with a real gateway behind a proxy that breaks one promise at a time.
"""

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import io
import json
import pathlib
import random
import socket
import sys
import threading
import unittest
from importlib.machinery import SourceFileLoader

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import harness  # noqa: E402
import make  # noqa: E402
import nodes  # noqa: E402
import tamper  # noqa: E402
import wire  # noqa: E402

VECTORS = wire.ROOT / "schemas" / "vectors"
CASES = harness.load()
KEY = "a key of thirty-two bytes or more"


def load_check():
    loader = SourceFileLoader("check", str(harness.HERE / "check"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("check", loader))
    loader.exec_module(module)
    return module


check = load_check()


class Fake:
    """Answers each frame with the bytes that `answer(kind, body)` gives; None closes the connection."""

    def __init__(self, answer):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                self.sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        waiting = b""
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                waiting += data
                while len(waiting) >= 8:
                    length, kind, _, _ = wire.HEADER.unpack_from(waiting)
                    if len(waiting) < 8 + length:
                        break
                    out = self.answer(kind, waiting[8 : 8 + length])
                    if out is None:
                        return client.close()
                    client.sendall(out)
                    waiting = waiting[8 + length :]

    def gateway(self, deadline=0.3):
        gateway = harness.Gateway("127.0.0.1", self.port, KEY.encode(), deadline=deadline)
        gateway.hello = connected()
        gateway.namespaces = frozenset(
            ["few", "joins", "members", "nolog", "noecho", "nopresence", "open", "readonly", "vanish"]
        )
        return gateway


def connected(**more):
    frame = wire.Frame(
        request=1,
        version=1,
        session=1,
        node=harness.CONFIGURED,
        user="u",
        ping_interval_ms=1000,
        pong_timeout_ms=500,
        message_bytes_max=65_536,
        rooms_max=130,
        requests_in_flight_max=64,
        inbox_recovered=True,
        inbox=harness.position(1, 0),
        server_time_ms=1,
        dedup_window_ms=1,
        frames_rate=10,
        frames_burst=50,
        bytes_rate=100_000,
        bytes_burst=200_000,
        receive_window=8,
        **more,
    )
    frame.name = "Connected"
    return frame


CONNECTED = make.gateway_frame("Connected", **connected())


def run_check(*arguments):
    """The exit code and what was said."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = check.main(list(arguments))
        except SystemExit as end:
            code = end.code
    return code, out.getvalue() + errors.getvalue()


class Sentences(unittest.TestCase):
    def test_each_sentence_stands_on_the_page(self):
        self.assertEqual(harness.drifted(CASES + nodes.CASES, harness.PAGE.read_text(encoding="utf-8")), [])

    def test_a_sentence_that_left_the_page_then_its_cases_are_named(self):
        page = harness.words(harness.PAGE.read_text(encoding="utf-8")).replace(
            "A second `Connect` closes with 3501.", ""
        )
        cases = harness.chosen(CASES, ["states/*"])
        self.assertEqual(harness.drifted(cases, page), ["states/second-connect", "states/second-connect-at-once"])

    def test_names_are_unique_and_plain(self):
        self.assertEqual(harness.duplicates(CASES + nodes.CASES), [])
        self.assertEqual([case.name for case in CASES + nodes.CASES if not harness.plain_name(case.name)], [])

    def test_a_name_that_is_there_twice_then_it_is_named(self):
        self.assertEqual(harness.duplicates([CASES[0], CASES[1], CASES[0]]), [CASES[0].name])

    def test_each_section_has_cases(self):
        sections = {case.name.partition("/")[0] for case in CASES}
        self.assertEqual(sections, set(harness.SECTIONS))
        self.assertGreaterEqual(len(CASES), 150)

    def test_each_malformed_vector_is_sent(self):
        index = json.loads((VECTORS / "index.json").read_text(encoding="utf-8"))
        malformed = [entry for entry in index if entry["case"] == "malformed"]
        whole = [
            case for case in CASES if case.name.startswith("malformed/") and not case.name.endswith("-byte-by-byte")
        ]
        self.assertEqual(len(whole), len(malformed))

    def test_each_fault_names_cases_that_there_are(self):
        names = {case.name for case in CASES}
        for fault in tamper.FAULTS:
            self.assertTrue(fault.cases and set(fault.cases) <= names, fault)


class Frames(unittest.TestCase):
    def vectors(self):
        for entry in json.loads((VECTORS / "index.json").read_text(encoding="utf-8")):
            if entry["direction"] == "gateway" and entry["case"] != "malformed":
                yield entry, (VECTORS / entry["file"]).read_bytes()

    def test_each_vector_of_a_gateway_is_read_as_the_index_says(self):
        for entry, data in self.vectors():
            frame = wire.decode(data[4], data[8:])
            self.assertEqual(frame.name, entry["name"])
            self.assertEqual(as_index(entry["name"], frame), entry["fields"], entry["file"])

    def test_bytes_cut_off_then_the_frame_is_refused(self):
        for entry, data in self.vectors():
            body = data[8:]
            # Behind what the fields reach there may be padding.
            for length in range(0, max(len(body) - 16, 0), max(1, len(body) // 50)):
                with self.assertRaises(wire.Unreadable, msg=f"{entry['file']} cut to {length}"):
                    wire.decode(data[4], body[:length])

    def test_any_bytes_changed_then_nothing_but_unreadable_is_raised(self):
        lots = random.Random(1)
        for entry, data in self.vectors():
            for _ in range(200):
                body = bytearray(data[8:208])
                for _ in range(lots.randint(1, 4)):
                    if body:
                        body[lots.randrange(len(body))] = lots.randrange(256)
                with contextlib.suppress(wire.Unreadable):
                    wire.decode(data[4], bytes(body))

    def test_a_kind_that_no_gateway_sends_then_it_is_refused_and_unknown_ones_are_ignored(self):
        for kind in (0, 1, 3, 127):
            with self.assertRaises(wire.Unreadable):
                wire.decode(kind, b"")
        self.assertIsNone(wire.decode(200, b"anything"))

    def test_a_frame_without_fields_then_it_is_true_all_the_same(self):
        self.assertTrue(wire.decode(129, b""))

    def test_what_a_tampering_proxy_encodes_is_what_was_decoded(self):
        for entry, data in self.vectors():
            frame = wire.decode(data[4], data[8:])
            if frame.name in make.EMPTY:
                continue
            again = tamper.encode(frame)
            self.assertEqual(wire.decode(again[4], again[8:]), frame, entry["file"])


def as_index(name, frame):
    """A decoded frame as index.json shows it, but for what is absent: that is empty here and null there."""
    if name in make.EMPTY:
        return {}
    if name == "Published":
        return make.shown_body(name, {**frame, "reserved": 0})
    values = {field: plain(value) for field, value in frame.items() if field in frame.present}
    return make.shown_table(name, values)


def plain(value):
    if isinstance(value, list):
        return [{field: plain(inner) for field, inner in one.items() if field in one.present} for one in value]
    return value


class Misbehaving(unittest.TestCase):
    def passed(self, answer, patterns):
        with Fake(answer) as fake:
            results = harness.run_all(harness.chosen(CASES, patterns), fake.gateway(), 48, lambda result: None)
        return [result.case.name for result in results if result.outcome == "ok"]

    def test_a_gateway_that_says_nothing_then_no_case_passes(self):
        cases = [case.name for case in CASES if not case.long]
        self.assertEqual(self.passed(lambda kind, body: b"", cases), [])

    def test_a_gateway_that_closes_at_once_then_no_case_passes(self):
        cases = [case.name for case in CASES if not case.long]
        self.assertEqual(self.passed(lambda kind, body: None, cases), [])

    def test_a_gateway_that_knows_connect_alone_then_few_cases_pass(self):
        cases = [case.name for case in CASES if not case.long]
        passed = self.passed(lambda kind, body: CONNECTED if kind == 1 else b"", cases)
        # These look at Connected alone.
        self.assertEqual(
            set(passed),
            {
                "connect/announced-limits",
                "connect/client-name",
                "connect/dedup-window",
                "connect/inbox-position-of-nobody",
                "connect/ping-interval-bounds",
                "connect/token-within-its-second",
            },
        )

    def test_a_gateway_that_takes_everything_in_then_refusals_are_missed(self):
        answers = {1: CONNECTED, 2: make.gateway_frame("Pong")}
        passed = self.passed(
            lambda kind, body: answers.get(kind, b""),
            ["malformed/*", "frames/flags", "states/second-connect", "fields/*-missing"],
        )
        self.assertEqual(passed, [])

    def test_a_gateway_that_refuses_everything_then_no_case_passes(self):
        goodbye = make.gateway_frame("Goodbye", code=3501, reason="bad request", reconnect=False)

        self.assertEqual(self.passed(lambda kind, body: goodbye, ["connect/*", "publish/*", "inbox/*"]), [])


class Options(unittest.TestCase):
    def setUp(self):
        self.was = harness.CASES[:]

    def tearDown(self):
        harness.CASES[:] = self.was

    def with_cases(self, *cases):
        harness.CASES[:] = [
            harness.Case(f"fields/{name}", "a sentence", needs, run, False) for name, needs, run in cases
        ]

    def at_a_gateway(self, *arguments):
        numbers = iter(range(101, 10_000))

        def answer(kind, body):
            # The Presence requests with which `check` asks for namespaces.
            return (
                CONNECTED
                if kind == 1
                else make.gateway_frame("Error", request=next(numbers), code=102) if kind == 7 else b""
            )

        with Fake(answer) as fake:
            return run_check("--port", str(fake.port), "--key", KEY, *arguments)

    def test_all_cases_ok_then_0(self):
        self.with_cases(("good", (), lambda run: None))
        code, said = self.at_a_gateway()
        self.assertEqual(code, 0)
        self.assertIn('ok       fields/good  "a sentence"', said)

    def test_a_case_failed_then_1_and_why(self):
        self.with_cases(("good", (), lambda run: None), ("bad", (), lambda run: harness.equal("the code", 1, 2)))
        code, said = self.at_a_gateway()
        self.assertEqual(code, 1)
        self.assertIn('FAILED   fields/bad  "a sentence"\n         the code is 1 instead of 2', said)
        self.assertIn("1 ok, 1 failed, 0 skipped", said)

    def test_a_case_that_breaks_then_it_failed(self):
        self.with_cases(("broken", (), lambda run: {}["nothing"]))
        code, said = self.at_a_gateway()
        self.assertEqual(code, 1)
        self.assertIn("KeyError", said)

    def test_a_setting_is_missing_then_skipped_and_a_failure_with_strict(self):
        self.with_cases(("needy", (harness.namespace("few"),), lambda run: None))
        code, said = self.at_a_gateway()
        self.assertEqual(code, 0)
        self.assertIn("skipped  fields/needy", said)
        self.assertIn("needs the namespace `few`", said)
        self.assertEqual(self.at_a_gateway("--strict")[0], 1)

    def test_json_then_one_object_a_case(self):
        self.with_cases(("good", (), lambda run: None), ("bad", (), lambda run: harness.that(False, "no")))
        code, said = self.at_a_gateway("--json")
        got = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        self.assertEqual(
            [(one["case"], one["outcome"], one["text"]) for one in got],
            [("fields/good", "ok", ""), ("fields/bad", "FAILED", "no")],
        )
        self.assertEqual(code, 1)

    def test_nobody_listens_then_2(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        code, said = run_check("--port", str(port), "--key", KEY)
        self.assertEqual(code, 2)
        self.assertIn("no client can sign in", said)

    def test_the_key_is_not_the_gateways_then_2(self):
        goodbye = make.gateway_frame("Goodbye", code=3500, reason="invalid token", reconnect=False)
        with Fake(lambda kind, body: goodbye) as fake:
            code, said = run_check("--port", str(fake.port), "--key", KEY)
        self.assertEqual(code, 2)
        self.assertIn("3500", said)

    def test_no_port_or_no_case_then_2(self):
        self.assertEqual(run_check("--key", KEY)[0], 2)
        self.assertEqual(run_check("--list", "--only", "nothing/*")[0], 2)

    def test_list_then_names_and_sentences(self):
        code, said = run_check("--list", "--only", "states/second-connect")
        self.assertEqual((code, said), (0, 'states/second-connect  "A second `Connect` closes with 3501."\n'))


class Tokens(unittest.TestCase):
    def test_a_token_is_signed_with_the_key_and_names_it(self):
        gateway = harness.Gateway("127.0.0.1", 1, b"secret", key_id="one")
        # RFC 7515 compact form: what is signed, and HMAC-SHA-256 of it.
        head, body, signature = gateway.token_of({"sub": "alice"}).split(".")
        self.assertEqual(head, "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCIsICJraWQiOiAib25lIn0")
        self.assertEqual(body, "eyJzdWIiOiAiYWxpY2UifQ")
        wanted = base64.urlsafe_b64encode(
            hmac.new(b"secret", f"{head}.{body}".encode(), hashlib.sha256).digest()
        ).rstrip(b"=")
        self.assertEqual(signature.encode(), wanted)


if __name__ == "__main__":
    unittest.main()
