"""datakit converters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from datakit.errors import UsageError

from .common import verb

if TYPE_CHECKING:
    from datakit.convert import Converter


@verb("""
datakit converters
datakit converters kubric
""")
@click.argument("names", nargs=-1)
def command(names: tuple[str, ...]) -> int:
    """List the installed converters, or show the cards of the datasets called NAMES.

    A card says what a dataset is, what it obliges to, its conventions and its known defects.
    """
    from datakit.convert import installed, load_converter

    if names:
        click.echo("\n\n".join("\n".join(_card(name, load_converter(name))) for name in names))
        return 0
    broken = 0
    for name in installed():
        try:
            converter = load_converter(name)
        except UsageError as error:  # one broken package must not hide the others
            click.echo(f"{name:<16} broken: {error}")
            broken += 1
            continue
        click.echo(f"{name:<16} {converter.VERSION:<8} {converter.CARD.title} ({converter.CARD.licence})")
    return int(broken > 0)


def _card(name: str, converter: Converter) -> list[str]:
    from datakit.convert import param_defaults

    card = converter.CARD
    lines = [
        f"{name} {converter.VERSION}: {card.title}",
        f"  {card.homepage}",
        f"  licence: {card.licence}. {card.licence_note}",
        f"  cite: {card.citation}",
        f"  scale: {card.scale}",
        f"  native forms: {', '.join(converter.NATIVE_FORMS)}",
    ]
    params = [f"{key}={value}" for key, value in param_defaults(converter).items()]
    for title, items in (
        ("gives", card.supervision),
        ("conventions", card.conventions),
        ("known defects", card.defects),
        ("parameters and defaults", tuple(params)),
    ):
        if items:
            lines += [f"  {title}:", *(f"    - {item}" for item in items)]
    return lines
