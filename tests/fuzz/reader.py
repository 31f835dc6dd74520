"""Whatever bytes come as a message: nothing but our own errors, and the parts agree with one another.

    python -m tests.fuzz.reader -runs=1000000

Coverage-guided. The first two bytes of an input say what the rest is put behind (a header, an envelope, an answer) and
in which characters; the third chooses options.
"""

from __future__ import annotations

from tests.fuzz import atheris, fuzz

with atheris.instrument_imports(include=["engine.hl7"]):
    from engine.config.edge import AckForm
    from engine.hl7 import datetime, escape
    from engine.hl7.ack import AckCode, AckError, acknowledge, answers, parse_ack
    from engine.hl7.batch import acknowledge_batch, is_batch, peek_batch, read_batch
    from engine.hl7.charset import Undecodable, declared, decode
    from engine.hl7.group import Group, Grouper, Node, Slot
    from engine.hl7.message import Message, delimiters_of, parse_path, split_segments
    from engine.hl7.modes import accept_code, is_acknowledgement, wanted
    from engine.hl7.peek import Peek, peek
    from engine.hl7.wide import narrow, wide_form, widen

FRONTS = (
    b"",
    b"MSH",
    b"MSH|^~\\&|",
    b"MSH|^~\\&|A|B|C|D|20260102||ORU^R01^ORU_R01|7|P|2.5.1|||AL|NE||",
    b"MSH|^~\\&|A|B|C|D|20260102||ORU^R01|7|P|2.3||||||8859/1\rPID|1||",
    b"MSH|^~\\&|A|B|C|D|20260102||ORU^R01|7|P|2.3||||||~ISO IR87\rPID|1||",
    b"MSH#@!$%#A#B#C#D#20260102##ADT@A01#7#P#2.4\nPID#1##",
    b"MSH|^~\\&|A|B|C|D|20260102||ACK^R01|8|P|2.5\rMSA|AE|7|",
    b"MSH|^~\\&|A\rSFT|x\rMSA|AA|7\rERR|||",
    b"FHS|^~\\&|A|B|C|D|2026||||F1\rBHS|^~\\&|A|B|C|D|2026||||B1\rMSH|^~\\&|A||||||ORU^R01|7|P|2.5\r",
    b"BHS|^~\\&|A\rMSH|^~\\&|A\rPID|1\rBTS|1",
    b"FHS|",
    b"\xef\xbb\xbf\r\n MSH|^~\\&|",
)
CODECS = (None, None, None, None, "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")
ENCODINGS = ("auto", "auto", "auto", "cp1252", "utf-8", "iso-8859-1", "utf-16", "no such codec")
UNDECLARED = (None, None, "cp1252", "iso-8859-1", "iso-8859-2", "no such codec")
CODES: tuple[AckCode, ...] = ("AA", "AE", "AR", "CA", "CE", "CR")
FORMS = (
    AckForm(),
    AckForm(),
    AckForm(codes={"AA": "CA"}, kind="ACK", err="none"),
    AckForm(kind="ACK^trigger", err="2.3", text=False),
    AckForm(kind="ACK^trigger^ACK", err="2.5"),
)
ERRORS = (None, AckError(101, "PID-5 is missing", "PID", 1, 5), AckError(207, "a|b^c~d\\e&f"), AckError(999))
PATHS = ("MSH-9.2", "PID-3", "PID-5[2].1.2", "OBX[3]-5.1", "ZZZ-1")

GROUPER = Grouper(
    Node(
        "ORU",
        [
            Slot("MSH"),
            Slot("PATIENT", optional=True, node=Node("PATIENT", [Slot("PID"), Slot("NTE", many=True, optional=True)])),
            Slot("ORDER", many=True, node=Node("ORDER", [Slot("OBR"), Slot("OBX", many=True, optional=True)])),
        ],
    )
)


def one_input(data: bytes) -> None:
    front, codec, option = (*data[:3], 0, 0, 0)[:3]
    frame = FRONTS[front % len(FRONTS)] + data[3:]
    form = CODECS[codec % len(CODECS)]
    if form is not None:
        frame = frame.decode("latin-1").encode(form) + data[-1:] * (codec > 127)
    head = peek(frame)
    header(head, frame)
    answered(head, frame, option)
    batched(frame)
    text = decoded(frame, option)
    for value in [frame.decode("latin-1")] if text is None else {text, text[:64]}:
        read(value)
    if (wide := wide_form(frame)) is not None:
        assert widen(narrow(frame, wide), wide).startswith(wide.mark)


def header(head: Peek, frame: bytes) -> None:
    assert head.ok == (head.problem is None)
    assert (head.control_id or "").encode("latin-1") == head.raw(10)
    for number in range(2, 19):
        assert b"\r" not in head.raw(number)
        assert b"\n" not in head.raw(number)
    for value in (head.version, head.charset, head.processing, head.accept_ack, head.application_ack, repr(head)):
        assert isinstance(value, str)
    assert declared(frame) == head.charset.strip()
    for mode in ("auto", "original", "enhanced"):
        asks = wanted(head, mode)  # type: ignore[arg-type]
        assert asks.enhanced or (asks.application.on(True) and not asks.accept.on(False))


def answered(head: Peek, frame: bytes, option: int) -> None:
    told = answers(frame)
    assert is_acknowledgement(head, frame) == (head.type in ("ACK", "MCF") or (head.ok and told is not None))
    assert not is_acknowledgement(head) or is_acknowledgement(head, frame)
    theirs = parse_ack(frame)
    assert theirs is None or (theirs.code.isalnum() and theirs.is_for(f" {theirs.control_id}"))
    code, form = CODES[option % len(CODES)], FORMS[option % len(FORMS)]
    ours = acknowledge(head, code, control_id="X1", at=0, error=ERRORS[option % len(ERRORS)], form=form)
    back = peek(ours)
    assert back.ok
    assert back.control_id == "X1"
    assert back.type == "ACK"
    assert back.wide == head.wide
    assert is_acknowledgement(back, ours)
    found = parse_ack(ours)
    assert found is not None
    assert found.code == form.codes.get(code, code)
    assert found.control_id == answers(ours) == (head.control_id or "")
    assert accept_code(code)[0] == "C"


def batched(frame: bytes) -> None:
    batch = read_batch(frame)
    assert (batch is not None) == is_batch(frame)
    if batch is None:
        assert not peek_batch(frame).ok
        return
    assert b"".join(piece.raw for piece in batch.pieces) == frame
    assert sum(section.found for section in batch.sections) == len(batch.messages)
    assert all(problem.text for problem in batch.problems)
    single = acknowledge(peek_batch(frame), "AA", control_id="X3", at=0)
    assert peek(single).type == "ACK"
    assert answers(single) == (batch.head.control_id or "")
    heads = [peek(message) for message in batch.messages]
    inner = [acknowledge(head, "AA", control_id=str(number), at=0) for number, head in enumerate(heads)]
    reply = read_batch(acknowledge_batch(batch.head, inner, control_id="X2", at=0))
    assert reply is not None
    assert reply.head.control_id == "X2"
    if all(head.wide == heads[0].wide == batch.head.wide for head in heads):
        assert len(reply.messages) == len(inner)


def decoded(frame: bytes, option: int) -> str | None:
    try:
        return decode(frame, ENCODINGS[option % len(ENCODINGS)], UNDECLARED[option % len(UNDECLARED)])
    except Undecodable as refusal:
        found = refusal
    assert 0 <= found.position <= len(frame)
    assert str(found)
    return None


def read(text: str) -> None:
    message = Message(text)
    assert message.text == text
    delimiters = delimiters_of(text)
    for segment in message:
        fields = segment.fields
        for number in (0, 1, 2, 3, 5, 9, len(fields)):
            for place in ((1, 0, 0), (1, 1, 0), (2, 1, 2)):
                value = segment.get(number, *place)
                assert value is None or isinstance(value, str)
            segment.repetitions(number)
    for path in (*PATHS, text[:12]):
        try:
            parse_path(path)
            message.get(path)
        except ValueError:
            assert path not in PATHS
    assert escape.unescape(escape.escape(text)) == text
    escape.unescape(escape.escape(text, delimiters), delimiters)
    escape.unescape(text, delimiters)
    for value in (text, text[:8], text[:14], text[3:22]):
        datetime.parse(value)
        datetime.date(value)
        datetime.datetime_(value, datetime.zone_of(value))
        datetime.instant(value)
        datetime.time(value)
    lines = split_segments(text)
    tree, repairs = GROUPER.group(lines)
    unknown = sum(repair.code == "unknown-segment" for repair in repairs)
    assert placed(tree) + unknown == len(lines)


def placed(group: Group) -> int:
    return sum(placed(item) if isinstance(item, Group) else 1 for items in group.items for item in items)


if __name__ == "__main__":
    fuzz(one_input)
