"""A real RTSP server for tests, for the system's Python with GStreamer's bindings; see `benchmarks.harness.rtsp`.

Prints its port once it listens on loopback, and ends when its standard input closes. `/live` is a test pattern without
an end, and `/udp` the same over UDP alone. `/counted` has each frame's number in it as 16 stripes. `/file` is the H.264
file of `--file`.
"""

from __future__ import annotations

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

ROLE = "viewer"
ENCODED = (
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)
PATTERN = f"( videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! {ENCODED}"
BITS = 16
DARK, BRIGHT, GREY = 16, 235, 128


def counted_picture(number: int, width: int, height: int) -> bytes:
    """Return an I420 picture of 16 vertical stripes: the bits of `number`, the highest one first, a one is bright."""
    stripe = width // BITS
    row = b"".join(bytes([BRIGHT if number >> bit & 1 else DARK]) * stripe for bit in reversed(range(BITS)))
    row += bytes([DARK]) * (width - len(row))
    return row * height + bytes([GREY]) * (width // 2 * (height // 2) * 2)


class Counted:
    """A source of numbered pictures for each media of its factory."""

    def __init__(self, width: int, height: int, fps: int) -> None:
        self.size = width, height
        self.fps = fps
        caps = f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1"
        source = f"appsrc name=source is-live=true format=time do-timestamp=true caps={caps}"
        self.factory = factory_of(f"( {source} ! {ENCODED}", shared=True)
        self.factory.connect("media-configure", self.configure)

    def configure(self, _factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        """Start feeding a media that a client has requested."""
        source = media.get_element().get_by_name("source")
        number = 0

        def push() -> bool:
            nonlocal number
            picture = Gst.Buffer.new_wrapped(counted_picture(number % 2**BITS, *self.size))
            picture.duration = Gst.SECOND // self.fps
            number += 1
            return bool(source.emit("push-buffer", picture) == Gst.FlowReturn.OK)

        GLib.timeout_add(1000 // self.fps, push)


def factory_of(launch: str, shared: bool) -> GstRtspServer.RTSPMediaFactory:
    """Return the factory for the media of a path; a shared media is made once for all its clients."""
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch)
    factory.set_shared(shared)
    permissions = GstRtspServer.RTSPPermissions()
    for permission in ("access", "construct"):
        permissions.add_permission_for_role(ROLE, f"media.factory.{permission}", True)
    factory.set_permissions(permissions)
    return factory


def main() -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", help="an mp4 file with an H.264 stream")
    parser.add_argument("--login", help="user:password that clients must give")
    parser.add_argument("--counted", type=int, nargs=3, metavar=("WIDTH", "HEIGHT", "FPS"), default=(320, 240, 5))
    parser.add_argument("--port", default="0")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    mounts = server.get_mount_points()
    mounts.add_factory("/live", factory_of(PATTERN, shared=True))
    over_udp = factory_of(PATTERN, shared=True)
    over_udp.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    mounts.add_factory("/udp", over_udp)
    counted = Counted(*options.counted)
    mounts.add_factory("/counted", counted.factory)
    if options.file:
        launch = f'( filesrc location="{options.file}" ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 )'
        mounts.add_factory("/file", factory_of(launch, shared=False))
    if options.login:
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE)
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*options.login.split(":", 1)), token)
        server.set_auth(auth)
    server.attach(None)
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_HUP | GLib.IO_IN, lambda *_: loop.quit())
    print(server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
