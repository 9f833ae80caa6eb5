"""The wallet discovery document and the key set (standards.md F.1)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from drimbox.sandbox.psc.provider import SCOPE, Provider
from drimbox.sandbox.psc.tokens import ACR

CLIENT_METHODS = ["client_secret_basic", "client_secret_post", "tls_client_auth"]
GRANTS = ["authorization_code", "refresh_token", "urn:openid:params:grant-type:ciba"]


async def discovery(provider: Provider, _request: Request) -> Response:
    """``wallet-openid-configuration``: what this provider does, and nothing that it does not."""
    inner = {
        "token_endpoint": provider.endpoint("token"),
        "introspection_endpoint": provider.endpoint("token/introspect"),
        "revocation_endpoint": provider.endpoint("revoke"),
        "userinfo_endpoint": provider.endpoint("userinfo"),
        "backchannel_authentication_endpoint": provider.endpoint("ext/ciba/auth"),
    }
    return JSONResponse(
        {
            "issuer": provider.issuer,
            "authorization_endpoint": f"{provider.wallet_url}/auth",
            **inner,
            "end_session_endpoint": provider.endpoint("logout"),
            "jwks_uri": provider.endpoint("certs"),
            "frontchannel_logout_supported": True,
            "frontchannel_logout_session_supported": True,
            "backchannel_logout_supported": True,
            "backchannel_logout_session_supported": True,
            "backchannel_token_delivery_modes_supported": ["poll"],
            "backchannel_user_code_parameter_supported": False,
            "grant_types_supported": GRANTS,
            "acr_values_supported": [ACR],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "subject_types_supported": ["public"],
            "scopes_supported": list(SCOPE),
            "id_token_signing_alg_values_supported": ["RS256"],
            "userinfo_signing_alg_values_supported": ["RS256", "none"],
            "token_endpoint_auth_methods_supported": CLIENT_METHODS,
            "introspection_endpoint_auth_methods_supported": CLIENT_METHODS,
            "revocation_endpoint_auth_methods_supported": CLIENT_METHODS,
            "claim_types_supported": ["normal"],
            "claims_supported": ["aud", "sub", "iss", "auth_time", "acr", "SubjectNameID", "SubjectRefPro"],
            "claims_parameter_supported": False,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "code_challenge_methods_supported": ["S256"],
            "tls_client_certificate_bound_access_tokens": True,
            "mtls_endpoint_aliases": inner,
            "authorization_response_iss_parameter_supported": True,
        },
        headers={"Cache-Control": "no-cache, must-revalidate, no-transform, no-store"},
    )


async def certs(provider: Provider, _request: Request) -> Response:
    """``jwks_uri``."""
    return JSONResponse(provider.mint.public_keys(), headers={"Cache-Control": "no-cache"})
