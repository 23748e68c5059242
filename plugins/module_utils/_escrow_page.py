# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The page that lies beside a medium of the escrow, for people who have nothing but it, openssl and tar (pure)."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import textwrap
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._signature import key_id

Index = t.Mapping[str, t.Any]
# A code of this many characters is still read from paper by any telephone.
CODE_CHARACTERS = 900
_MEANING = {
    "vault": "the encrypted secrets vault (secrets.vault)",
    "key": "the vault's passphrase file (vault.key) and the settings with MazeVault's own keys (.env)",
}
_OTHER = {"vault": "key", "key": "vault"}
_STYLE = (
    "body{font:11pt/1.35 ui-monospace,Menlo,Consolas,monospace;margin:2em;color:#000;background:#fff}"
    "pre{white-space:pre-wrap}figure{display:inline-block;margin:.5em;break-inside:avoid;text-align:center}"
    "figure svg{width:72mm;height:72mm}figcaption{font-size:8pt}@page{margin:15mm}@media print{body{margin:0}}"
)


def grouped(digest: str) -> str:
    """Sixteen groups of four, in two lines: what two people can read to each other."""
    groups = [digest[place : place + 4] for place in range(0, len(digest), 4)]
    return "\n".join(" ".join(groups[place : place + 8]) for place in range(0, len(groups), 8))


def page_text(half: str, installation: str, indexes: t.Sequence[Index], host_key: str) -> str:
    """Everything about one half, the newest generation first; it ends with the page's own checksum.

    Args:
        indexes: oldest first.
        host_key: public key (PEM) of the host that signed them.
    """
    ours = [one for one in reversed(indexes) if any(entry["half"] == half for entry in one["files"])]
    lines = [
        f"MAZEVAULT KEY ESCROW - HALF {half.upper()}",
        f"Installation: {installation}",
        f"Generations:  {len(ours)}" + (f", from {_day(ours[-1])} to {_day(ours[0])}" if ours else ""),
        "",
        "WHAT THIS IS",
        *textwrap.wrap(
            f"The files named below hold {_MEANING[half]}, encrypted. Nothing on this page is secret. The half"
            f" {_OTHER[half].upper()} is kept by other people in another place: bring both together only to restore.",
            width=78,
        ),
        "",
        "TO CHECK A FILE, compare it with its sum below, group by group:",
        "  sha256sum FILE | cut -c1-64 | fold -w4 | paste -sd' '",
        "",
        "TO OPEN A FILE, on a machine without a network, with the private key of one of",
        "its recipients (IDENTITY):",
        *(f"  {command}" for command in _commands(ours)),
        "It leaves the files in the current folder, with generation.json, which has to",
        "name the generation that this page has for it. Whether key and vault belong",
        "together is told by: vault-tool list --vault-file secrets.vault --key-file vault.key",
        "",
    ]
    for number, one in enumerate(ours):
        lines += _generation(one, half, newest=number == 0)
    lines += [
        "WHO SIGNED THE LIST that this page was made from (escrow.*.json beside the files):",
        f"the host's key {key_id(host_key)[:16] if host_key else 'is not known'}. A restore on a new host needs it;",
        "compare it with the card.",
        *host_key.strip().splitlines(),
        "",
    ]
    text = "\n".join(lines)
    sums = grouped(hashlib.sha256(text.encode()).hexdigest()).split("\n")
    count = text.count("\n")
    return f"{text}CHECKSUM OF THE {count} LINES ABOVE (head -n {count} THIS_FILE | sha256sum):\n" + "".join(
        f"  {line}\n" for line in sums
    )


def _day(index: Index) -> str:
    return f"{str(index['at'])[:16].replace('T', ' ')} UTC"


def _commands(indexes: t.Sequence[Index]) -> list[str]:
    schemes = dict.fromkeys(str(one["scheme"]) for one in indexes)
    commands = {
        "cms": "openssl cms -decrypt -binary -inform DER -in FILE -inkey IDENTITY | tar -x",
        "age": "age -d -i IDENTITY FILE | tar -x",
    }
    return [commands[scheme] for scheme in schemes]


def _generation(one: Index, half: str, *, newest: bool) -> list[str]:
    lines = [f"GENERATION {one['generation']}, escrowed {_day(one)}{' (the newest)' if newest else ''}"]
    for entry in one["files"]:
        if entry["half"] == half:
            lines.append(f"  {entry['name']}  {entry['bytes']} bytes")
            lines.append(f"  holds {', '.join(entry['holds'])}")
            lines += [f"    {line}" for line in grouped(entry["sha256"]).split("\n")]
    lines.append("  opened by one of:")
    for person in one["recipients"][half]:
        lines.append(f"    {person['name']}")
        if person["fingerprint"] != person["name"]:
            lines += [f"      {line}" for line in grouped(person["fingerprint"]).split("\n")]
    return [*lines, ""]


def code_texts(name: str, content: bytes) -> list[str]:
    """A file in as many texts as it takes codes: a line that says which one, then base64."""
    whole = base64.b64encode(content).decode("ascii")
    count = math.ceil(len(whole) / CODE_CHARACTERS)
    parts = [whole[place : place + CODE_CHARACTERS] for place in range(0, len(whole), CODE_CHARACTERS)]
    return [f"MZV {name} {number}/{count}\n{part}\n" for number, part in enumerate(parts, 1)]


def page_html(text: str, title: str, codes: t.Sequence[tuple[str, str]]) -> str:
    """The same page to be printed, with nothing from elsewhere.

    Args:
        codes: (caption, picture as SVG) of each code.
    """
    pictures = "".join(
        f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>\n" for caption, picture in codes
    )
    how = (
        "<h2>The newest encrypted key as codes</h2>\n<p>Scan all of them into one text file, in this order. Then:</p>\n"
        "<pre>grep -v '^MZV ' scanned.txt | base64 -d &gt; FILE</pre>\n"
        "<p>and compare FILE with its sum above. It opens as every other file here.</p>\n"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<pre>{html.escape(text)}</pre>\n{how + pictures if codes else ''}</body></html>\n"
    )
