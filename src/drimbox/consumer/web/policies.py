"""Content Security Policies: what each kind of answer may load, run, and be framed by."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

# The report beside the images: the same page, framed by ours.
BESIDE_POLICY = PAGE_POLICY.replace("frame-ancestors 'none'", "frame-ancestors 'self'")

# OHIF compiles WebAssembly decoders, starts workers from blobs and writes its own styles; it talks to us alone.
OHIF_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "connect-src 'self' blob: data:; img-src 'self' blob: data:; media-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

# Workers live under the policy of their own script. Those that decode images bind their compiled code by evaluating
# strings: allowed there, where no document is, and not in the page.
WORKER_POLICY = "default-src 'none'; script-src 'self' 'unsafe-eval'; connect-src 'self' blob: data:"

# A PDF may carry scripts and links of its own: it runs in nothing, and loads nothing.
PDF_POLICY = "default-src 'none'; style-src 'unsafe-inline'; object-src 'self'; frame-ancestors 'self'"
