"""Images, by docker or podman."""

import json
import os
import re
import shutil
import subprocess

from .refusal import Refusal


class Engine:
    """docker or podman, by what they have in common."""

    def __init__(self, name):
        # A client may be installed without its daemon, so each is asked.
        for self.name in [name] if name else ["docker", "podman"]:
            if shutil.which(self.name) and not subprocess.run([self.name, "version"], capture_output=True).returncode:
                return
        raise Refusal(f"{name or 'docker or podman'} does not answer: install it, or start its daemon")

    def __call__(self, *arguments, text=None):
        # Of the two formats that podman builds, only docker's keeps the HEALTHCHECK.
        environment = os.environ | {"BUILDAH_FORMAT": "docker"}
        done = subprocess.run([self.name, *arguments], input=text, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Refusal(f"{self.name} {arguments[0]}: {done.stderr.strip()}")
        return done.stdout.strip()

    def inspect(self, image):
        """The image of this name or id, or None."""
        try:
            found = json.loads(self("image", "inspect", image))[0]
        except Refusal as problem:
            if re.search("no such image|image not known", str(problem), re.IGNORECASE):
                return None
            raise
        return {
            "id": "sha256:" + found["Id"].removeprefix("sha256:"),
            "layers": found["RootFS"]["Layers"],
            "environment": dict(variable.split("=", 1) for variable in found["Config"].get("Env") or []),
            "labels": found["Config"].get("Labels") or {},
        }

    def ask(self, image, settings, *command):
        """What a command answers in the image, with nothing to reach and nothing to keep."""
        rights = ["--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        variables = [f"--env={name}={value}" for name, value in settings.items()]
        return self("run", "--rm", *rights, *variables, image, *command)
