# The image of roster: its programs and the public certificate authorities, without an operating system.
#
#     docker build --build-arg GIT_COMMIT=$(git rev-parse HEAD) --tag roster:0.1.0 .
#
# To add the address of the sources, use --label org.opencontainers.image.source=https://…. To replace the time of the
# build by that of the commit, use podman's --timestamp, or BuildKit's SOURCE_DATE_EPOCH and rewrite-timestamp=true.

ARG RUST_VERSION=1.95
# These are also in the image's labels.
ARG VERSION=0.1.0
ARG GIT_COMMIT=unknown

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /roster
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY bin/build* bin/
ARG VERSION
RUN grep --quiet --fixed-strings --line-regexp "version = \"${VERSION}\"" Cargo.toml \
    || { echo "VERSION is ${VERSION}, which differs from Cargo.toml: change it in the Dockerfile" >&2; exit 1; }

# The dependencies, in a layer that is reused if only the sources change. Stubs replace the sources. Their build is
# deleted, because cargo might consider it newer than the sources.
RUN mkdir -p src/bin benches tests \
    && touch src/lib.rs \
    && for stub in build.rs src/bin/roster.rs src/bin/web.rs benches/micro.rs tests/main.rs; do \
        echo 'fn main() {}' >"$stub"; \
    done \
    && bin/build \
    && cargo clean --release --target "$(rustc --print host-tuple)" --package roster

COPY . .
ARG GIT_COMMIT
RUN bin/build \
    && install -D target/programs/web /image/usr/local/bin/web \
    && ln -s web /image/usr/local/bin/worker \
    && ln -s web /image/usr/local/bin/clock \
    && ln -s web /image/usr/local/bin/migrate \
    && ln -s web /image/usr/local/bin/exec \
    && ln -s usr/local/bin /image/bin \
    # [only sqlite]
    # A new volume takes the owner of this folder.
    && install -d --owner=10001 --group=10001 /image/data \
    # [end]
    && install -D --mode=644 --target-directory=/image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt

FROM scratch
# One layer, so that its files are of one build.
COPY --from=build /image /
ARG VERSION
ARG GIT_COMMIT
LABEL org.opencontainers.image.title="roster" \
    org.opencontainers.image.description="A web service, the twelve-factor way" \
    # [only original]
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    # [end]
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${GIT_COMMIT}"
USER 10001:10001
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["web", "healthcheck", "--live"]
# The image has no shell. Platforms pass a command of the Procfile to the ENTRYPOINT instead.
ENTRYPOINT ["/usr/local/bin/exec"]
CMD ["web"]
