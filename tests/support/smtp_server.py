"""A mail server for tests, by aiosmtpd. It prints its port, and then a JSON object for each mail that it accepts.

The name in the address of the recipient selects a behaviour:
  busy…     451 for the first attempt, as greylisting does
  refused…  550
  broken…   the connection is closed in the middle of DATA for the first attempt, and the Message-ID of it is printed
  held…     DATA has no response until SIGUSR1
"""

import argparse
import asyncio
import email
import email.policy
import json
import signal
import ssl

from aiosmtpd.smtp import SMTP, AuthResult

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--certificate", help="a file with a certificate and its key")
parser.add_argument("--implicit", action="store_true", help="TLS from the first byte, without STARTTLS")
parser.add_argument("--login", help="user:password, which is required")
options = parser.parse_args()

attempts = set()
released = asyncio.Event()


def is_first(recipient):
    """Whether this is the first attempt for a recipient."""
    first = recipient not in attempts
    attempts.add(recipient)
    return first


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, _options):
        if address.startswith("busy") and is_first(address):
            return f"451 4.7.1 <{address}>: try again later"
        if address.startswith("refused"):
            return f"550 5.1.1 <{address}>: no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if envelope.rcpt_tos[0].startswith("held"):
            print(json.dumps({"held": envelope.rcpt_tos[0]}), flush=True)
            await released.wait()
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        bodies = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
        print(json.dumps({
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "tls": server.transport.get_extra_info("ssl_object") is not None,
            "login": session.auth_data.login.decode() if session.auth_data else None,
            "headers": {name.lower(): value for name, value in message.items()},
            "text": bodies.get("text/plain"), "html": bodies.get("text/html"),
        }), flush=True)
        return "250 OK"


class Server(SMTP):
    async def smtp_DATA(self, arg):
        recipients = self.envelope.rcpt_tos if self.envelope else []
        if recipients and recipients[0].startswith("broken") and is_first(recipients[0]):
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            while line := await self._reader.readline():
                if line.lower().startswith(b"message-id:"):
                    print(json.dumps({"broken": line.split()[1].decode()}), flush=True)
                    break
            self.transport.abort()
            return
        await super().smtp_DATA(arg)


def authenticate(server, session, envelope, mechanism, data):
    user, password = options.login.split(":")
    is_valid = (data.login, data.password) == (user.encode(), password.encode())
    return AuthResult(success=is_valid, handled=is_valid, auth_data=data)


async def main():
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
    settings = {"hostname": "localhost", "enable_SMTPUTF8": True}
    if context and not options.implicit:
        settings.update(tls_context=context, require_starttls=True)
    if options.login:
        settings.update(authenticator=authenticate, auth_required=True, auth_require_tls=context is not None and not options.implicit)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, released.set)
    server = await loop.create_server(
        lambda: Server(Handler(), **settings), "127.0.0.1", options.port, ssl=context if options.implicit else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
