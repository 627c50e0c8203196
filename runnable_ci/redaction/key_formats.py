"""Private keys and key stores by their formats, whatever their files are called. Pure."""

from __future__ import annotations

import base64
import re
from binascii import Error as Base64Error
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

_MAGIC: Final = (
    (b"\xfe\xed\xfe\xed\x00\x00\x00", "a Java key store"),
    (b"\xce\xce\xce\xce\x00\x00\x00", "a Java key store"),
    (b"\x03\xd9\xa2\x9a", "a KeePass database"),
    (b"# Netscape HTTP Cookie File", "cookies"),
    (b"# HTTP Cookie File", "cookies"),
)
# A BEGIN line alone is a text about keys: the key itself has a line of base64, after what surrounds or heads it.
_PEM: Final = re.compile(
    rb"---- ?BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)? ?----(?:(?!---- ?END).){0,400}?[A-Za-z0-9+/]{40}", re.DOTALL
)
_PEM_IN_BASE64: Final = re.compile(rb"LS0tLS1CRUdJTi[A-Za-z0-9+/]{42}")
_PUTTY: Final = re.compile(rb"PuTTY-User-Key-File-[0-9]+: ")
_AGE: Final = re.compile(rb"AGE-SECRET-KEY-1[A-Z0-9]{50}")
_JWK: Final = re.compile(rb"""["'](?:d|k)["']\s*:\s*["'][A-Za-z0-9_-]{20}""")
_PEM_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_PUBLIC_LABEL: Final = re.compile(
    rb"(X509 |TRUSTED |NEW )?CERTIFICATE( REQUEST)?|X509 CRL|PKCS7|CMS|(RSA |EC |SSH2 |PGP )?PUBLIC KEY( BLOCK)?"
    rb"|(DH|DSA|EC|X9.42 DH) PARAMETERS"
)

# Object identifiers as DER has them. Source: RFC 8018 (PKCS #5), RFC 7292 (PKCS #12), RFC 2315 (PKCS #7 data).
_ENCRYPTIONS: Final = (b"\x2a\x86\x48\x86\xf7\x0d\x01\x05", b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01")
_PKCS7_DATA: Final = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07"
_PKCS12_INDEFINITE: Final = b"\x30\x80\x02\x01\x03\x30\x80\x06\x09" + _PKCS7_DATA
_LEAST_SCALAR_BYTES: Final = 20
"""Of an elliptic curve's private key."""
_MOST_PARTS: Final = 16


def key_file(data: bytes) -> str:
    """Return what a file is that begins with, or is, these bytes: `a private key (PKCS #8)` and the like.

    Empty for none.
    """
    for magic, what in _MAGIC:
        if data.startswith(magic):
            return what
    return _der(data)


def key_in(text: bytes) -> str:
    """Return what private key stands in a text; empty for none."""
    if (b"PRIVATE KEY" in text and _PEM.search(text)) or _PUTTY.search(text):
        return "a private key"
    for found in _PEM_IN_BASE64.finditer(text):
        if b" PRIVATE KEY" in _decoded(found[0]):
            return "a private key in base64"
    if _AGE.search(text):
        return "an age key"
    if b'"kty"' in text and _JWK.search(text):
        return "a private JSON web key"
    return ""


def is_public_pem(text: bytes) -> bool:
    """Return whether a PEM file has certificates and public keys alone."""
    labels = _PEM_LABEL.findall(text)
    return bool(labels) and all(_PUBLIC_LABEL.fullmatch(label) for label in labels)


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except (Base64Error, ValueError):
        return b""


class _Tag(IntEnum):
    """What begins an element. Source: X.690, 8.1.2."""

    INTEGER = 0x02
    OCTETS = 0x04
    OID = 0x06
    SEQUENCE = 0x30
    CONTEXT_0 = 0xA0
    CONTEXT_1 = 0xA1


class _Element(NamedTuple):
    """An element of DER; its content is `data[begin:end]`."""

    tag: int
    begin: int
    end: int


def _der(data: bytes) -> str:
    """Return the kind of private key that exactly these bytes are in DER."""
    if data.startswith(_PKCS12_INDEFINITE):
        return "a key store (PKCS #12)"
    whole = _element(data, 0)
    if whole is None or whole.tag != _Tag.SEQUENCE or whole.end != len(data):
        return ""
    parts = _parts(data, whole)
    tags = [part.tag for part in parts]
    if tags[:1] != [_Tag.INTEGER]:
        encrypted = tags == [_Tag.SEQUENCE, _Tag.OCTETS] and _oid(data, parts[0]).startswith(_ENCRYPTIONS)
        return "an encrypted private key (PKCS #8)" if encrypted else ""  # RFC 5958, 3
    match int.from_bytes(data[parts[0].begin : parts[0].end]), tags[1:]:
        case 0 | 1, [_Tag.SEQUENCE, _Tag.OCTETS, *_] if _oid(data, parts[1]):
            return "a private key (PKCS #8)"  # RFC 5958, 2
        case 0 | 1, [*rest] if len(rest) in (5, 8, 9) and set(rest[:8]) == {_Tag.INTEGER}:
            return "a private key (RSA or DSA)"  # RFC 8017, A.1.2: eight numbers, and others; DSA has five
        case 1, [_Tag.OCTETS, *rest] if set(rest) <= {_Tag.CONTEXT_0, _Tag.CONTEXT_1}:
            scalar_bytes = parts[1].end - parts[1].begin
            return "a private key (EC)" if scalar_bytes >= _LEAST_SCALAR_BYTES else ""  # RFC 5915, 3
        case 3, [_Tag.SEQUENCE, *_] if _oid(data, parts[1]).startswith(_PKCS7_DATA):
            return "a key store (PKCS #12)"  # RFC 7292, 4
        case _:
            return ""


def _element(data: bytes, at: int) -> _Element | None:
    if at + 2 > len(data):
        return None
    tag, size = data[at], data[at + 1]
    begin = at + 2
    if size >= 0x80:  # the length of the length
        begin += size & 0x7F
        if not 0x81 <= size <= 0x84:
            return None
        size = int.from_bytes(data[at + 2 : begin])
    return _Element(tag, begin, begin + size)


def _parts(data: bytes, whole: _Element) -> Sequence[_Element]:
    """Return what a sequence is made of; nothing where that does not fill it exactly."""
    found: list[_Element] = []
    at = whole.begin
    while at < whole.end:
        part = _element(data, at)
        if part is None or part.end > whole.end or len(found) == _MOST_PARTS:
            return []
        found.append(part)
        at = part.end
    return found


def _oid(data: bytes, sequence: _Element) -> bytes:
    """Return the object identifier that a sequence begins with; empty where it begins with none."""
    first = _element(data, sequence.begin)
    return data[first.begin : first.end] if first and first.tag == _Tag.OID and first.end <= sequence.end else b""
