"""A real RTSP server for the tests, run by the system's Python, which has GStreamer's bindings.

Prints its port once it listens on loopback, and ends when its standard input closes. `/live` is a test pattern without
an end, `/file` the H.264 file of `--file`.
"""

from __future__ import annotations

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ROLE = "viewer"
PATTERN = (
    "( videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def factory_of(launch: str, shared: bool) -> GstRtspServer.RTSPMediaFactory:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch)
    factory.set_shared(shared)
    permissions = GstRtspServer.RTSPPermissions()
    for permission in ("access", "construct"):
        permissions.add_permission_for_role(ROLE, f"media.factory.{permission}", True)
    factory.set_permissions(permissions)
    return factory


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", help="an mp4 file with an H.264 stream")
    parser.add_argument("--login", help="user:password that clients must give")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory("/live", factory_of(PATTERN, shared=True))
    if options.file:
        launch = f'( filesrc location="{options.file}" ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 )'
        server.get_mount_points().add_factory("/file", factory_of(launch, shared=False))
    if options.login:
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE)
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*options.login.split(":")), token)
        server.set_auth(auth)
    server.attach(None)
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_HUP | GLib.IO_IN, lambda *_: loop.quit())
    print(server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
