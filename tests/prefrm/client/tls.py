"""Throwaway certificates, and TLS in front of a plain server, with or without certificates of clients."""

import asyncio
import contextlib
import ssl
import threading
from concurrent.futures import Future

import trustme


class Authority:
    """Issues certificates into a folder; `ca` is the file that a peer believes."""

    def __init__(self, folder):
        self._folder, self._inner = folder, trustme.CA()
        self.ca = folder / "ca.pem"
        self._inner.cert_pem.write_to_path(self.ca)

    def issue(self, name, *, host="127.0.0.1"):
        """The paths of a certificate for an address, and of its key."""
        made = self._inner.issue_cert(host)
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(cert)
        made.private_key_pem.write_to_path(key)
        return cert, key


def server_side(cert, key, *, client_ca=None):
    """What a server shows, and asks for if it wants certificates of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


@contextlib.contextmanager
def encrypted(address, context):
    """The `host:port` at which a plain server is reached through TLS."""
    host, _, port = address.rpartition(":")
    ready = Future()

    async def pump(reader, writer):
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def meet(reader, writer):
        with contextlib.suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async def main():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        # A handshake that fails is what the test is about.
        loop.set_exception_handler(lambda *_: None)
        server = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=context)
        ready.set_result((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        server.close()
        # What is in the middle of a handshake, nobody could close.
        await asyncio.sleep(0.3)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    found, stop = ready.result(10)
    try:
        yield f"127.0.0.1:{found}"
    finally:
        stop()
        thread.join()
