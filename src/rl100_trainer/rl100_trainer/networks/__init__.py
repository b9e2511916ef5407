"""Networks: point-cloud encoder, denoisers, reconstruction decoders and the policy they form."""
