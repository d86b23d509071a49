"""The facts of an event as the record commits to them (docs/src/formats/parts.md)."""
from google.protobuf.message import Message


def plain(message):
    """A message of facts as JSON: numbers are decimal strings and always there, what is empty is left out."""
    members = {}
    for field in message.DESCRIPTOR.fields:
        value, kind = getattr(message, field.name), field.message_type
        if isinstance(value, int):
            value = str(value)
        elif isinstance(value, Message):
            value = plain(value) if message.HasField(field.name) else None
        elif kind and kind.GetOptions().map_entry:
            value = dict(value)
        elif not isinstance(value, str):
            value = [plain(one) if kind else one for one in value]
        members[field.name] = value
    return {name: value for name, value in members.items() if value}
