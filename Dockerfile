# The gate in an image that holds one program and the C library it was linked with: no shell, no package manager, no
# user but its own. Runs with a read-only root; it writes to no file unless the configuration names one.
#
#   docker build -t portcullis .
#   docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -p 8443:8443 -p 8080:8080 -v "$PWD/gate.toml:/etc/portcullis/gate.toml:ro" portcullis

FROM rust:1.95-slim-bookworm AS builder
WORKDIR /build
# Dependencies first: this layer is built again only when the lock file changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
 && printf '//! Placeholder.\n' > src/lib.rs \
 && printf '//! Placeholder.\nfn main() {}\n' > src/main.rs \
 && cargo build --release --locked --bin portcullis \
 && rm -r src
COPY . .
# The placeholder is newer than the copied sources; cargo goes by time stamps.
RUN touch src/lib.rs src/main.rs \
 && cargo build --release --locked --bin portcullis

# The final root, put together where there is a shell: the program, the libraries that it loads, trust anchors, one user.
FROM rust:1.95-slim-bookworm AS rootfs
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates
COPY --from=builder /build/target/release/portcullis /rootfs/usr/local/bin/portcullis
RUN ldd /rootfs/usr/local/bin/portcullis | grep -o '/[^ ]*' | sort -u | xargs -I{} cp --parents -L {} /rootfs \
 && mkdir -p /rootfs/etc/portcullis /rootfs/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ \
 && printf 'hosts: files dns\n' > /rootfs/etc/nsswitch.conf \
 && printf 'portcullis:x:65532:65532::/:/nonexistent\n' > /rootfs/etc/passwd \
 && printf 'portcullis:x:65532:\n' > /rootfs/etc/group

FROM scratch
COPY --from=rootfs /rootfs/ /
USER 65532:65532
EXPOSE 8080 8443
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
  CMD ["/usr/local/bin/portcullis", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["run", "-c", "/etc/portcullis/gate.toml"]
