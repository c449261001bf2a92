# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in ``_docker._options.docker_argument_spec``."""

from __future__ import annotations


class ModuleDocFragment:
    ENGINE = r"""
options:
  docker_host:
    description:
      - The URL or the socket of the Docker engine, for example V(tcp://192.0.2.23:2376).
      - E(DOCKER_HOST) is used if it is not given.
    type: str
    default: unix:///var/run/docker.sock
    aliases: [docker_url]
  api_version:
    description:
      - The version of the API of the engine. V(auto) asks the engine.
      - E(DOCKER_API_VERSION) is used if it is not given.
    type: str
    default: auto
    aliases: [docker_api_version]
  timeout:
    description:
      - How many seconds one answer of the engine or the registry may take.
      - E(DOCKER_TIMEOUT) is used if it is not given.
    type: int
    default: 60
  tls:
    description:
      - Use TLS to the engine without looking at who it is. O(validate_certs=true) looks.
      - E(DOCKER_TLS) is used if it is not given.
    type: bool
    default: false
  validate_certs:
    description:
      - Use TLS to the engine, and refuse it unless its certificate is trusted and for its host.
      - E(DOCKER_TLS_VERIFY) is used if it is not given.
    type: bool
    default: false
    aliases: [tls_verify]
  ca_path:
    description:
      - The file on this host with the certificates that are trusted for the engine.
      - With TLS, C(ca.pem) in E(DOCKER_CERT_PATH) is used if it is not given.
    type: path
    aliases: [ca_cert, tls_ca_cert, cacert_path]
  client_cert:
    description:
      - The file on this host with the certificate to show to the engine.
      - With TLS, C(cert.pem) in E(DOCKER_CERT_PATH) is used if it is not given.
    type: path
    aliases: [tls_client_cert, cert_path]
  client_key:
    description:
      - The file on this host with the key of O(client_cert).
      - With TLS, C(key.pem) in E(DOCKER_CERT_PATH) is used if it is not given.
    type: path
    aliases: [tls_client_key, key_path]
"""

    # For modules that also act on a registry, beside ENGINE.
    DOCUMENTATION = r"""
options:
  registry:
    description:
      - The registry whose tags are meant. Without it the tags of the engine are, and the other options say which one.
    type: dict
    suboptions:
      url:
        description:
          - Its address, for example V(https://registry.example:5000). V(https://registry-1.docker.io) for Docker Hub. No path and no login in it.
        type: str
        required: true
      username:
        description:
          - Who logs in, if the registry asks for a login. It may ask for a basic login, or send to a token server for a bearer token.
        type: str
      password:
        description:
          - The password or token of O(registry.username). It is sent to nobody but the registry and the token server that it names.
        type: str
      validate_certs:
        description:
          - Whether the registry's certificate must be trusted and for its host.
          - V(false) also lets the password cross the network in clear, for a registry without TLS.
        type: bool
        default: true
      ca_path:
        description:
          - The file on this host with the certificates that are trusted, instead of the system's.
        type: path
      client_cert:
        description:
          - The file on this host with the certificate to show to the registry. It may hold the key, too.
        type: path
      client_key:
        description:
          - The file on this host with the key of O(registry.client_cert).
        type: path
"""
