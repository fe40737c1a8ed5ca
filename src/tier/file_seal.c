/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Seals: what makes bytes from the file believable.
 *
 * A checksum would find a flipped bit, but not bytes that were right once: those of a write that got lost, of another
 * place, of another entry. So the key stream and the tag depend on all that says where the bytes belong. The nonce is
 * the segment's generation, which never comes twice in the life of the key, and the place in the segment; the entry and
 * its slot are authenticated data. Without encryption the same tag is computed over the plain bytes, which stand behind
 * the identity in the buffer, so that both are one message.
 */
#include "tier/file_internal.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

_Static_assert(sizeof(struct spw__seal_id) == SPW__TAG, "an identity fits in the place of a tag");

struct nonce {
	uint8_t bytes[crypto_aead_aes256gcm_NPUBBYTES];
};

_Static_assert(crypto_aead_aes256gcm_NPUBBYTES == crypto_aead_chacha20poly1305_ietf_NPUBBYTES, "one nonce for both");
_Static_assert(crypto_aead_aes256gcm_ABYTES == SPW__TAG && crypto_aead_chacha20poly1305_ietf_ABYTES == SPW__TAG, "tag");
_Static_assert(SPW_FILE_KEY == crypto_aead_aes256gcm_KEYBYTES &&
		       SPW_FILE_KEY == crypto_aead_chacha20poly1305_ietf_KEYBYTES,
	       "one key for both");

int spw__seal_init(struct spw__seal *k, const uint8_t key[SPW_FILE_KEY], bool encrypt)
{
	if (sodium_init() < 0)
		return -ENOSYS;
	memcpy(k->key, key, SPW_FILE_KEY);
	k->encrypt = encrypt;
	k->hardware = crypto_aead_aes256gcm_is_available();
	if (k->hardware)
		crypto_aead_aes256gcm_beforenm(&k->aes, key);
	return 0;
}

static struct nonce nonce_of(uint64_t gen, uint32_t at)
{
	struct nonce n;

	memcpy(n.bytes, &gen, sizeof(gen));
	memcpy(n.bytes + sizeof(gen), &at, sizeof(at));
	return n;
}

static void encrypt(const struct spw__seal *k, const struct nonce *n, const void *ad, uint32_t ad_len, const void *in,
		    uint32_t len, uint8_t *out, uint8_t *tag)
{
	if (k->hardware)
		crypto_aead_aes256gcm_encrypt_detached_afternm(out, tag, NULL, in, len, ad, ad_len, NULL, n->bytes,
							       &k->aes);
	else
		crypto_aead_chacha20poly1305_ietf_encrypt_detached(out, tag, NULL, in, len, ad, ad_len, NULL, n->bytes,
								   k->key);
}

static int decrypt(const struct spw__seal *k, const struct nonce *n, const void *ad, uint32_t ad_len, const uint8_t *in,
		   uint32_t len, uint8_t *out, const uint8_t *tag)
{
	int ret;

	if (k->hardware)
		ret = crypto_aead_aes256gcm_decrypt_detached_afternm(out, NULL, in, len, tag, ad, ad_len, n->bytes,
								     &k->aes);
	else
		ret = crypto_aead_chacha20poly1305_ietf_decrypt_detached(out, NULL, in, len, tag, ad, ad_len, n->bytes,
									 k->key);
	return ret ? -EBADMSG : 0;
}

void spw__seal(const struct spw__seal *k, uint64_t gen, uint32_t at, const struct spw__seal_id *id, const void *in,
	       uint32_t len, uint8_t *out)
{
	struct nonce n = nonce_of(gen, at);
	uint8_t tag[SPW__TAG];

	if (k->encrypt) {
		encrypt(k, &n, id, sizeof(*id), in, len, out + SPW__TAG, out);
		return;
	}
	memcpy(out, id, sizeof(*id));
	memmove(out + SPW__TAG, in, len);
	encrypt(k, &n, out, SPW__TAG + len, NULL, 0, tag, tag);
	memcpy(out, tag, SPW__TAG);
}

int spw__unseal(const struct spw__seal *k, uint64_t gen, uint32_t at, const struct spw__seal_id *id, uint8_t *sealed,
		uint32_t len, void *out)
{
	struct nonce n = nonce_of(gen, at);
	uint8_t tag[SPW__TAG], none = 0;
	int err;

	if (k->encrypt)
		return decrypt(k, &n, id, sizeof(*id), sealed + SPW__TAG, len, out, sealed);
	memcpy(tag, sealed, SPW__TAG);
	memcpy(sealed, id, sizeof(*id));
	err = decrypt(k, &n, sealed, SPW__TAG + len, &none, 0, &none, tag);
	memcpy(sealed, tag, SPW__TAG);
	if (!err)
		memmove(out, sealed + SPW__TAG, len);
	return err;
}
