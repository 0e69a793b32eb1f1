/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <fcntl.h>

#include "lib/store/sigv4.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SECRET "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
#define UNRESERVED "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

struct vector {
	const char *method, *path, *query, *payload;
	const char *headers[8]; /* besides Host and X-Amz-Date */
	const char *signed_headers, *signature;
};

static char *sign(const struct warm_sigv4 *q)
{
	struct warm_buf value = WARM_BUF_INIT;

	assert_int_equal(warm_sigv4_sign(q, &value, NULL), 0);
	warm_buf_put_u8(&value, 0);
	return (char *)value.data;
}

static void check(const struct vector *v, struct warm_sigv4 q, const char *host, const char *date)
{
	const char *headers[10] = { host, v->headers[0], date };
	char want[700];
	size_t n = v->headers[0] != NULL ? 3 : 2;

	if (n == 2)
		headers[1] = date;
	for (size_t i = 1; i < COUNT(v->headers) && v->headers[i] != NULL; i++)
		headers[n++] = v->headers[i];
	q.method = v->method;
	q.path = v->path;
	q.query = v->query;
	q.payload = v->payload;
	q.headers = headers;
	q.n_headers = n;
	snprintf(want, sizeof(want),
		 "AWS4-HMAC-SHA256 Credential=%s/%.8s/us-east-1/%s/aws4_request, "
		 "SignedHeaders=%s, Signature=%s",
		 q.key_id, date + strlen("X-Amz-Date: "), q.service, v->signed_headers,
		 v->signature);
	char *have = sign(&q);
	assert_string_equal(have, want);
	free(have);
}

/* The published test suite, "aws-sig-v4-test-suite". */
static const struct vector suite[] = {
	{ "GET",
	  "/",
	  "",
	  EMPTY,
	  { NULL },
	  "host;x-amz-date",
	  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31" },
	{ "GET",
	  "/",
	  "Param2=value2&Param1=value1",
	  EMPTY,
	  { NULL },
	  "host;x-amz-date",
	  "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500" },
	{ "GET",
	  "/",
	  UNRESERVED "=" UNRESERVED,
	  EMPTY,
	  { NULL },
	  "host;x-amz-date",
	  "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197" },
	{ "GET",
	  "/",
	  "%E1%88%B4=bar",
	  EMPTY,
	  { NULL },
	  "host;x-amz-date",
	  "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04" },
	{ "GET",
	  "/%E1%88%B4",
	  "",
	  EMPTY,
	  { NULL },
	  "host;x-amz-date",
	  "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85" },
	{ "GET",
	  "/",
	  "",
	  EMPTY,
	  { "My-Header1: value1", "My-Header2: \"a   b   c\"" },
	  "host;my-header1;my-header2;x-amz-date",
	  "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736" },
	{ "POST",
	  "/",
	  "",
	  EMPTY,
	  { NULL },
	  "host;x-amz-date",
	  "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b" },
	{ "POST",
	  "/",
	  "Param1=value1",
	  EMPTY,
	  { NULL },
	  "host;x-amz-date",
	  "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11" },
	{ "POST",
	  "/",
	  "",
	  "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
	  { "Content-Type: application/x-www-form-urlencoded" },
	  "content-type;host;x-amz-date",
	  "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a" },
	{ "POST",
	  "/",
	  "",
	  EMPTY,
	  { "My-Header1: value1" },
	  "host;my-header1;x-amz-date",
	  "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c" },
	{ "POST",
	  "/",
	  "",
	  EMPTY,
	  { "My-Header1: VALUE1" },
	  "host;my-header1;x-amz-date",
	  "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d" },
	{ "POST",
	  "/",
	  "",
	  EMPTY,
	  { "X-Amz-Security-Token: AQoDYXdzEPT//////////"
	    "wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD"
	    "8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq"
	    "5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKm"
	    "lzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==" },
	  "host;x-amz-date;x-amz-security-token",
	  "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead" },
};

TEST(the_published_suite_is_signed_as_published)
{
	struct warm_sigv4 q = { .key_id = "AKIDEXAMPLE",
				.secret = SECRET,
				.region = "us-east-1",
				.service = "service",
				.now_ms = 1440938160000 };

	for (size_t i = 0; i < COUNT(suite); i++)
		check(&suite[i], q, "Host: example.amazonaws.com", "X-Amz-Date: 20150830T123600Z");
}

/* "Signature calculations for the Authorization header", Amazon S3 API reference. */
static const struct vector s3_examples[] = {
	{ "GET",
	  "/test.txt",
	  "",
	  EMPTY,
	  { "Range: bytes=0-9", "x-amz-content-sha256: " EMPTY },
	  "host;range;x-amz-content-sha256;x-amz-date",
	  "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41" },
	{ "PUT",
	  "/test%24file.text",
	  "",
	  "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
	  { "Date: Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class: REDUCED_REDUNDANCY",
	    "x-amz-content-sha256: "
	    "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072" },
	  "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
	  "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd" },
	{ "GET",
	  "/",
	  "lifecycle",
	  EMPTY,
	  { "x-amz-content-sha256: " EMPTY },
	  "host;x-amz-content-sha256;x-amz-date",
	  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
	{ "GET",
	  "/",
	  "max-keys=2&prefix=J",
	  EMPTY,
	  { "x-amz-content-sha256: " EMPTY },
	  "host;x-amz-content-sha256;x-amz-date",
	  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
};

TEST(the_examples_of_s3_are_signed_as_documented)
{
	struct warm_sigv4 q = { .key_id = "AKIAIOSFODNN7EXAMPLE",
				.secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
				.region = "us-east-1",
				.service = "s3",
				.now_ms = 1369353600000 };

	for (size_t i = 0; i < COUNT(s3_examples); i++)
		check(&s3_examples[i], q, "Host: examplebucket.s3.amazonaws.com",
		      "X-Amz-Date: 20130524T000000Z");
}

/* Random requests, their signatures by botocore 1.43. */
static const struct {
	const char *method, *path, *query, *region, *secret;
	int64_t now_ms;
	const char *payload;
	const char *headers[10];
	const char *signature;
} random_requests[] = {
	{ "POST",
	  "/X1/c9/bZ9Y%20",
	  "a-=%2F%26.c&a-=%20",
	  "eu-central-1",
	  "AeAAA300d0+d+B22/2+0/0e3ddfd332C/fACAB23",
	  1660770677000,
	  "33fb25139786db6e5aab04c77167390dbee2ace3931bbc2ae26506865733512c",
	  { "x-amz-request-payer: requester", "Range: bytes=0-91",
	    "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-1:1:key/ca2b",
	    "Host: eddfad.s3.us-east-2.amazonaws.com:9000",
	    "x-amz-content-sha256: "
	    "33fb25139786db6e5aab04c77167390dbee2ace3931bbc2ae26506865733512c",
	    "X-Amz-Date: 20220817T211117Z", "X-Amz-Security-Token: X/dY+oA/DQoYAoDY=Y/D",
	    "x-amz-server-side-encryption: aws:kms" },
	  "494190c127e04e0b060ab95777e4f389c2f7f20fec39aa9a6739bfed036af22c" },
	{ "PUT",
	  "/0_Za.",
	  "b=%3D0&-=&b=&uploads",
	  "auto",
	  "12CA302/330C001A213232dBAAC2fB/+0A2A202d",
	  1750777758000,
	  EMPTY,
	  { "X-Amz-Date: 20250624T150918Z",
	    "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-1:1:key/ccba",
	    "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	    "Host: cdaccc.s3.us-east-2.amazonaws.com", "x-amz-server-side-encryption: aws:kms" },
	  "3c1e5c755b596ca1d45d9789a012ea11eefd4d339dc6613c6cd550af1895cb63" },
	{ "DELETE",
	  "/%26Y%26Za-Y/..%2B_",
	  "-=~&a=cb%26&-ba=Xc9&aaa=%26%2BZ",
	  "eu-central-1",
	  "d+fAedBAd11dBf0C+1e2AB2131fdAffCAdeA132d",
	  1479171960000,
	  EMPTY,
	  { "x-amz-server-side-encryption: aws:kms", "Range: bytes=9-96",
	    "Host: faabad.s3.us-east-2.amazonaws.com:9000",
	    "Content-Type:   application/xml;   charset=utf-8 ", "X-Amz-Date: 20161115T010600Z",
	    "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	    "X-Amz-Security-Token: YDzDoDDoY+DXQdYD//D=", "x-amz-request-payer: requester",
	    "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-1:1:key/2acc" },
	  "587b6754790687ef489fb883cea380764a533115ef6e3eaa09c38c2b591e6f4a" },
	{ "DELETE",
	  "/%20%25%25%20/%251ZX/%20.9X%201~Z",
	  "bb=&b--=.",
	  "eu-central-1",
	  "0f/3+d2C/0B31f2Aee//AAB//232f1eBde3/0d/+",
	  1576512100000,
	  WARM_SIGV4_UNSIGNED,
	  { "x-amz-server-side-encryption: aws:kms",
	    "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-1:1:key/2bbb",
	    "x-amz-content-sha256: UNSIGNED-PAYLOAD", "Range: bytes=7-23",
	    "Content-Type:   application/xml;   charset=utf-8 ",
	    "Host: fcdabc.s3.us-east-2.amazonaws.com", "X-Amz-Date: 20191216T160140Z" },
	  "cf98f85097641d7886524695aba2183f903f26e16cc20a5d798cfb852f532745" },
	{ "PUT",
	  "/9~9%20/%26a9",
	  "-=.%26&b-=",
	  "us-east-1",
	  "+3d0B3+2B0Be/dC++0A++C3+d+C013ACf+31+2e+",
	  1447879999000,
	  "f44ea202899793f4204dcea0bfdf4e46aeaf9018f4c6bf9625171993154beb53",
	  { "Range: bytes=4-59", "X-Amz-Date: 20151118T205319Z",
	    "x-amz-content-sha256: "
	    "f44ea202899793f4204dcea0bfdf4e46aeaf9018f4c6bf9625171993154beb53",
	    "x-amz-server-side-encryption: aws:kms", "X-Amz-Security-Token: ADQ=YY+Q+oDozXoDd/o+",
	    "Host: cffddc.s3.eu-west-1.amazonaws.com:9000",
	    "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-1:1:key/2cb2" },
	  "04fb2f79f06730c30c0ff5394eb278b858c08b01d2373580fffd2991693931d8" },
	{ "HEAD",
	  "/1Y%25%2B/Za~%20%3Db~/_",
	  "ab=%2F.~&ab-=_",
	  "eu-central-1",
	  "f2CBA10eB+10C+B0Ce/1eed3B30e+131d2/d03f+",
	  1373246287000,
	  EMPTY,
	  { "X-Amz-Date: 20130708T011807Z", "x-amz-request-payer: requester",
	    "Host: eecaaa.s3.us-east-2.amazonaws.com",
	    "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	    "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-1:1:key/bac1",
	    "Range: bytes=0-56", "X-Amz-Security-Token: ddz=AAA=+Y=+Y=/A+QYQ",
	    "x-amz-server-side-encryption: aws:kms" },
	  "066f17575543a26c964301bcd5b99f8a729415e2da606fef4267d4822609dd06" },
	{ "POST",
	  "/%C3%A9%20%3D%3D%20/%2B_b_%2Bac/X%20_%3D",
	  "--a=%20&bb=%2F.%3Dc&b=_c",
	  "auto",
	  "11Bf1223A3/AAe330Ae/B1A2AdC+01e200C1d/1B",
	  1567861863000,
	  WARM_SIGV4_UNSIGNED,
	  { "Host: bdaaac.s3.us-east-2.amazonaws.com:9000", "X-Amz-Date: 20190907T131103Z",
	    "x-amz-content-sha256: UNSIGNED-PAYLOAD",
	    "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:eu-1:1:key/cc21",
	    "x-amz-server-side-encryption: aws:kms" },
	  "15b3236e4ad9fc1d5aaa683ea834d2dc9a123c8c685fe492331fa5d705c38959" },
	{ "POST",
	  "/%3D/bc%20%20/1c",
	  "a-=&-=b%2F%2F~&a=&abb=%C3%A9&uploads",
	  "auto",
	  "0/f+1+fedC3dB1e0+f3+e1BB0/CfC+/A2B01ff3f",
	  1443813211000,
	  "1986cd9d597b33f45de0e6db4ed3eb4206617b68d6cfb18c629d86488e6de247",
	  { "x-amz-content-sha256: "
	    "1986cd9d597b33f45de0e6db4ed3eb4206617b68d6cfb18c629d86488e6de247",
	    "X-Amz-Date: 20151002T191331Z", "Range: bytes=2-23",
	    "Host: bdfaae.s3.eu-west-1.amazonaws.com:9000" },
	  "50d1516b53027b8ffb778abcade2cff177ff326a68cde738cd0f841147537ae0" },
	{ "DELETE",
	  "/ZX%26b0-/1~~",
	  "a=~%C3%A99&b=9%20_~&a=&uploads",
	  "us-east-1",
	  "+CBf1ABA1C0Bf1ABd1/C2ef1f+BB++++eBCB3f3e",
	  1857690724000,
	  EMPTY,
	  { "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	    "Content-Type:   application/xml;   charset=utf-8 ", "Range: bytes=3-11",
	    "Host: fdcfdf.s3.us-east-2.amazonaws.com", "X-Amz-Date: 20281113T011204Z",
	    "X-Amz-Security-Token: d/X++Xo/+==Az=/ddddQ" },
	  "4df347cbba046173c5b49357144c0ba36b712dadade0bba20f6699c5a83af0bc" },
	{ "PUT",
	  "/Z_1%C3%A9%C3%A9%3D/101~10/_aa9%2690_",
	  "bba=X&b=.&b=%25a%26_",
	  "us-east-1",
	  "32B03C/ddAede0d1fe0/CA3f+210/0C0C00A+C1A",
	  1710781681000,
	  "355b1bbfc96725cdce8f4a2708fda310a80e6d13315aec4e5eed2a75fe8032ce",
	  { "X-Amz-Date: 20240318T170801Z", "X-Amz-Security-Token: =XQdzdQoooAo+z=o++z=",
	    "x-amz-content-sha256: "
	    "355b1bbfc96725cdce8f4a2708fda310a80e6d13315aec4e5eed2a75fe8032ce",
	    "Host: feaecf.s3.eu-west-1.amazonaws.com:9000", "Range: bytes=1-59" },
	  "39490dcea3686afa9954d6c3d4bb92ee6588ec10f108400d5939f9e38865eed2" },
	{ "POST",
	  "/bX%3D%2B%C3%A9",
	  "",
	  "auto",
	  "d30e0d+C/B/+fB2d/Bd2eBC322fCeC+d3B/+C2dC",
	  1629222690000,
	  "aecec455e69c380dd32e7d5cc2934a9b8e3818c7339e2a0fc6c55186cc39fbdb",
	  { "x-amz-content-sha256: "
	    "aecec455e69c380dd32e7d5cc2934a9b8e3818c7339e2a0fc6c55186cc39fbdb",
	    "Host: feeeda.s3.eu-west-1.amazonaws.com", "X-Amz-Date: 20210817T175130Z" },
	  "8a45813e0bdf4adff2675fe9ec2341982c525348b06aac3775abb0b9aff00dfb" },
	{ "DELETE",
	  "/1%2B%26~/%26-/0",
	  "",
	  "us-east-1",
	  "B1BC30efC120eB3fd++/ACA+2+/e3C/f/fBfAff/",
	  1442305453000,
	  WARM_SIGV4_UNSIGNED,
	  { "x-amz-request-payer: requester", "Range: bytes=4-89",
	    "X-Amz-Security-Token: =QD=zY/YzzzQ/DYQzAYz", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
	    "Host: affdca.s3.us-east-2.amazonaws.com",
	    "Content-Type:   application/xml;   charset=utf-8 ", "X-Amz-Date: 20150915T082413Z" },
	  "38373a5659ea5ba04efd116ee5b96936d959864e853d775f8cb103b12a97fa3a" },
	{ "GET",
	  "/b-/19%20",
	  "ab=a~%C3%A9&a-a=&bb-=-&a-=Z",
	  "us-east-1",
	  "2CBd0+0d+f+/C0ddBCf0Bfdfe1dA3///30d/efA+",
	  1660857907000,
	  WARM_SIGV4_UNSIGNED,
	  { "Range: bytes=4-42", "Host: ddeacd.s3.us-east-2.amazonaws.com",
	    "Content-Type:   application/xml;   charset=utf-8 ", "X-Amz-Date: 20220818T212507Z",
	    "x-amz-content-sha256: UNSIGNED-PAYLOAD" },
	  "200f114fffc728debd0e1992b3890617339cb1ff301350b102cb020a4ed777f6" },
	{ "GET",
	  "/b%20%26",
	  "aa=%3D%2B%2B&a=Y&-=&--b=",
	  "us-east-1",
	  "BBe01d/ed1AA0e+ef2d+0d0dA/32eAAd+22/Bed2",
	  1632231888000,
	  EMPTY,
	  { "x-amz-request-payer: requester", "Host: cbddfd.s3.us-east-2.amazonaws.com:9000",
	    "Range: bytes=2-39", "X-Amz-Date: 20210921T134448Z",
	    "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
	  "3ae5e383939a9350286825afb9154fcd3b67dfa61a4411939a072d7e2dcfcf0a" },
	{ "POST",
	  "/0%26/-01%2B/9-X%26",
	  "a=%20b%25&b=&a=Y%20bb&b=.Xc",
	  "us-east-1",
	  "BeBf/B0d/fe/BA3+df0+dff3+A2/d2/A/A+BAed3",
	  1749651006000,
	  WARM_SIGV4_UNSIGNED,
	  { "Range: bytes=2-93", "Host: fdcfdb.s3.eu-west-1.amazonaws.com:9000",
	    "X-Amz-Date: 20250611T141006Z", "Content-Type:   application/xml;   charset=utf-8 ",
	    "x-amz-content-sha256: UNSIGNED-PAYLOAD" },
	  "2bdc73e2c52f55e619ca508166d2b02425c16a1aa574d7e1f83b584fd7f9ac91" },
	{ "GET",
	  "/Z~/%20--%20b/%25_%20%20a",
	  "ab-=0a%20&b=",
	  "auto",
	  "/B313C2d1/1d+C1dA/0C/fBCd3dA02A2fB/1+02e",
	  1407721139000,
	  EMPTY,
	  { "Host: dedada.s3.us-east-2.amazonaws.com", "X-Amz-Security-Token: dQ++X/ooXYo/oQQdzDYo",
	    "Content-Type:   application/xml;   charset=utf-8 ", "Range: bytes=5-68",
	    "X-Amz-Date: 20140811T013859Z", "x-amz-request-payer: requester",
	    "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
	  "db898a2f5e089c164ed5f10af2b7964659c082a42bd35ad8665aafe3cb04f883" },
	{ "HEAD",
	  "/%2BZ%26~XcY_",
	  "ab=%3DbbY&-=%3Dc&-=Yac",
	  "eu-central-1",
	  "C2e2f/CeB0A2f+0013Be02/3fe/f1CffB+dC13Ae",
	  1591924331000,
	  EMPTY,
	  { "Host: edbaae.s3.us-east-2.amazonaws.com:9000", "X-Amz-Date: 20200612T011211Z",
	    "x-amz-request-payer: requester", "X-Amz-Security-Token: o=DQX+YoX+YzoY/zD+Y+",
	    "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
	  "a9f0339aea0301d88d07f428e3605599074735690260d33bdcd3414449083e47" },
	{ "GET",
	  "/bY%261ba/a/-X%3D_%C3%A91",
	  "b-a=_&baa=&-=%2B&uploads",
	  "us-east-1",
	  "A102dC/d012022/1C0eBe2A3+30A//3+B32+CdBe",
	  1522979929000,
	  WARM_SIGV4_UNSIGNED,
	  { "x-amz-content-sha256: UNSIGNED-PAYLOAD", "X-Amz-Date: 20180406T015849Z",
	    "X-Amz-Security-Token: AA=/X+=+z+/zDoAAA/Ad",
	    "Host: fabbce.s3.us-east-2.amazonaws.com:9000" },
	  "5bc94c7f3f6e1835e30592a4d78c08d5411cd311316277b0f1f607aca70a4c44" },
	{ "POST",
	  "/c%3DaZ/10Z.0",
	  "-a=%C3%A9%26%26&-aa=1%2F-&b=%2Fc%2FZ&uploads",
	  "auto",
	  "2e+BCB2deff/eAfeeA3ff10+e13A/A/0Bf+3A01d",
	  1390939552000,
	  "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
	  { "Content-Type:   application/xml;   charset=utf-8 ",
	    "X-Amz-Security-Token: Ao==AQAQ+XD/=QdQDDDQ",
	    "Host: facfef.s3.us-east-2.amazonaws.com:9000", "Range: bytes=1-89",
	    "X-Amz-Date: 20140128T200552Z",
	    "x-amz-content-sha256: "
	    "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9" },
	  "0727b3bcb1a9c8742c430adafadb8ae51f33337cbe9381264c1b4aff22b13745" },
	{ "POST",
	  "/%3D9%25Z-0/%26ZXc/%C3%A9X._X~~c",
	  "aba=9%20&-ab=%2B&-=%25b_%2F",
	  "auto",
	  "3d0dee31C3Cd3f10fCdfde3BC2Bd/CCe3e/edB2B",
	  1633666889000,
	  WARM_SIGV4_UNSIGNED,
	  { "X-Amz-Date: 20211008T042129Z", "Host: aacdad.s3.eu-west-1.amazonaws.com:9000",
	    "x-amz-content-sha256: UNSIGNED-PAYLOAD", "Range: bytes=7-94" },
	  "89a86b9a820f99496ee5a65452562e48422ef00125ed9f74903ff84c6a7670d5" },
	{ "GET",
	  "/_./%3D%C3%A90-%20.%209",
	  "b=_%26&b-=%3D_&-=X.0&-b=%2F",
	  "us-east-1",
	  "B2CA/B2AfCe03eeC/AfA/121A+10AB/13/+BA2/1",
	  1548188980000,
	  EMPTY,
	  { "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	    "Host: eddbab.s3.us-east-2.amazonaws.com", "X-Amz-Security-Token: YQAADz+=A//+d+o==+=Q",
	    "Range: bytes=0-61", "X-Amz-Date: 20190122T202940Z" },
	  "fdbb07384a2fb824e4c8f52cb72b7ce148d807ae1b2067d55d686193baa71f87" },
	{ "GET",
	  "/c0",
	  "uploads",
	  "eu-central-1",
	  "1Aff13++2CCBf2C2/+/+e1feeA1231f13AC1e1/d",
	  1671515753000,
	  EMPTY,
	  { "Host: fdbbfa.s3.us-east-2.amazonaws.com",
	    "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	    "X-Amz-Security-Token: oQY=/zz=YAAAAA==+QdY", "X-Amz-Date: 20221220T055553Z",
	    "Range: bytes=9-41" },
	  "f5d68740c9dae2cfd01a220dabc8a33de3d4ba380f11bd363bffffcb034a8dfc" },
	{ "GET",
	  "/9%C3%A9%26",
	  "a--=~01&-a=%2B09",
	  "eu-central-1",
	  "fBf2+BCf1Afe01ABAd1+11dee/B+11CeAfdC/BAA",
	  1759032902000,
	  WARM_SIGV4_UNSIGNED,
	  { "X-Amz-Security-Token: d+/Y/Xz/+DDDDQoYX++X",
	    "Host: cccdbe.s3.eu-west-1.amazonaws.com:9000", "X-Amz-Date: 20250928T041502Z",
	    "Range: bytes=6-68", "x-amz-content-sha256: UNSIGNED-PAYLOAD" },
	  "72095e9cd31821af7b2c4f564d08c93a6f2780823d630603e46736121f1f8d0e" },
	{ "DELETE",
	  "/%3D~/%2BZ_/1Zb9",
	  "-=&b=%26bXY",
	  "eu-central-1",
	  "+/C+dC2A+3dACdB1f3C+B/A2B+ffd+B2fCfd3AC3",
	  1844411047000,
	  EMPTY,
	  { "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	    "Host: fdafac.s3.us-east-2.amazonaws.com", "Range: bytes=3-96",
	    "X-Amz-Date: 20280612T082407Z" },
	  "f68cd212f02cb9ad5432104ab0198d97cb8b62e19d80188a8abfce87818ac3de" },
	{ "POST",
	  "/%26X.%2B%26",
	  "uploads",
	  "eu-central-1",
	  "ddB/e/CA3eC2A+0f0C+A0eCf/A/de1CCC0d3Cd1B",
	  1644387807000,
	  "902e048e356821bf77ec38602c8bb825504286a0a59cab07a7f2b83e603312b4",
	  { "X-Amz-Date: 20220209T062327Z", "Host: ddbbac.s3.us-east-2.amazonaws.com:9000",
	    "x-amz-content-sha256: "
	    "902e048e356821bf77ec38602c8bb825504286a0a59cab07a7f2b83e603312b4" },
	  "2176a055dbd67ca122870ffe66e8f22f1ecae06f14b5d12b8aebcf9bbd2f9aa8" },
	{ "DELETE",
	  "/.-%26ca%20/Y91Z%25_bZ/%25a_%3D%2B%3D",
	  "uploads",
	  "us-east-1",
	  "3++0A00CAdBd1CCBee0AAB33deA121+0d3+BfB3C",
	  1761355135000,
	  WARM_SIGV4_UNSIGNED,
	  { "x-amz-content-sha256: UNSIGNED-PAYLOAD", "X-Amz-Date: 20251025T011855Z",
	    "Host: cbaaff.s3.us-east-2.amazonaws.com" },
	  "0b58114f06ae61dbeb6b65cb12784a110d494cc9f083fc70235e49bf1bcd89de" },
	{ "POST",
	  "/1.%C3%A9/%269-0-b",
	  "uploads",
	  "auto",
	  "1B+/1C/e11B/+3+e3fef/001/2fA3+/+eC0eC/1/",
	  1501210826000,
	  "3973e022e93220f9212c18d0d0c543ae7c309e46640da93a4a0314de999f5112",
	  { "X-Amz-Date: 20170728T030026Z", "Host: bbeede.s3.us-east-2.amazonaws.com",
	    "Range: bytes=5-66", "X-Amz-Security-Token: Q/D=odX=Xo=D++Y/QzY=",
	    "x-amz-content-sha256: "
	    "3973e022e93220f9212c18d0d0c543ae7c309e46640da93a4a0314de999f5112" },
	  "16c5abcb144e7d7787cf4a5a4eb900cb3d55370a300aa2125e2be87464a53d53" },
	{ "GET",
	  "/b9X/_0",
	  "baa=~&aba=111b&-=.&uploads",
	  "auto",
	  "d/e/3+AdBCCf/CAe/0fBf0/f/2BB/f0d/d+efd/A",
	  1429706625000,
	  WARM_SIGV4_UNSIGNED,
	  { "x-amz-content-sha256: UNSIGNED-PAYLOAD",
	    "Content-Type:   application/xml;   charset=utf-8 ", "X-Amz-Date: 20150422T124345Z",
	    "Host: fafecb.s3.eu-west-1.amazonaws.com:9000" },
	  "45d2c686d426e665bbc575880739d77a58a4bfe6e384537817bf991c977601f2" },
	{ "PUT",
	  "/Z__0/~%250-%26%3D0",
	  "-a=%25%2B",
	  "auto",
	  "eBdeC3/ef/+22CeCAf223f/A233+d/f2BCeBe13d",
	  1727255524000,
	  EMPTY,
	  { "x-amz-content-sha256: "
	    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	    "x-amz-request-payer: requester", "X-Amz-Security-Token: /Q/YdA=+oYAdQoDXD=QQ",
	    "X-Amz-Date: 20240925T091204Z", "Host: fbabce.s3.eu-west-1.amazonaws.com:9000",
	    "Range: bytes=3-61" },
	  "932ee06ae05d343d410809dfae23d3cf3daa9d7e78d77f440beeccc906d9b76a" },
	{ "POST",
	  "/%3D9%20%25_aX-/%25/1",
	  "uploads",
	  "eu-central-1",
	  "f303322+0A23d/20C+dA30eC0C2d0edACff/Bd2e",
	  1589682147000,
	  WARM_SIGV4_UNSIGNED,
	  { "x-amz-content-sha256: UNSIGNED-PAYLOAD", "X-Amz-Date: 20200517T022227Z",
	    "Host: bdfaec.s3.eu-west-1.amazonaws.com", "Range: bytes=5-21" },
	  "85e95bb1785768a58cdc79f2d81bd893884f4b5ad1de33ef3ade75e1109e5922" },
};

TEST(random_requests_are_signed_as_botocore_does)
{
	size_t wrong = 0;

	for (size_t i = 0; i < COUNT(random_requests); i++) {
		struct warm_sigv4 q = {
			.key_id = "AKIDEXAMPLE",
			.secret = random_requests[i].secret,
			.region = random_requests[i].region,
			.service = "s3",
			.now_ms = random_requests[i].now_ms,
			.method = random_requests[i].method,
			.path = random_requests[i].path,
			.query = random_requests[i].query,
			.headers = random_requests[i].headers,
			.payload = random_requests[i].payload,
		};
		while (random_requests[i].headers[q.n_headers] != NULL)
			q.n_headers++;
		char *have = sign(&q);
		if (strcmp(strrchr(have, '=') + 1, random_requests[i].signature) != 0) {
			print_error("row %zu: %s %s?%s: %s\n", i, q.method, q.path, q.query, have);
			wrong++;
		}
		free(have);
	}
	assert_int_equal(wrong, 0);
}

TEST(headers_of_one_name_keep_their_order)
{
	static const struct vector rows[] = {
		{ "GET",
		  "/",
		  "",
		  EMPTY,
		  { "My-Header1: value2", "My-Header1: value2", "My-Header1: value1" },
		  "host;my-header1;x-amz-date",
		  "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea" },
		{ "GET",
		  "/",
		  "",
		  EMPTY,
		  { "My-Header1: value4", "My-Header1: value1", "My-Header1: value3",
		    "My-Header1: value2" },
		  "host;my-header1;x-amz-date",
		  "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01" },
	};
	struct warm_sigv4 q = { .key_id = "AKIDEXAMPLE",
				.secret = SECRET,
				.region = "us-east-1",
				.service = "service",
				.now_ms = 1440938160000 };

	for (size_t i = 0; i < COUNT(rows); i++)
		check(&rows[i], q, "Host: example.amazonaws.com", "X-Amz-Date: 20150830T123600Z");
}

TEST(a_value_is_appended_to_what_is_there)
{
	const char *const headers[] = { "Host: h" };
	struct warm_sigv4 q = { "K", "S", "r", "s", 0, "GET", "/", "", headers, 1, EMPTY };
	scope_buf struct warm_buf value = WARM_BUF_INIT;

	warm_buf_printf(&value, "before ");
	assert_int_equal(warm_sigv4_sign(&q, &value, NULL), 0);
	assert_memory_equal(value.data, "before AWS4-HMAC-SHA256 Credential=K/19700101/r/s/", 49);
}

TEST(more_headers_than_fit_are_refused)
{
	const char *headers[65];
	struct warm_sigv4 q = { "K", "S", "r", "s", 0, "GET", "/", "", headers, 65, EMPTY };
	scope_buf struct warm_buf value = WARM_BUF_INIT;

	for (size_t i = 0; i < COUNT(headers); i++)
		headers[i] = "a: b";
	assert_int_equal(warm_sigv4_sign(&q, &value, NULL), WARM_LIMIT);
}

TEST(dates_are_utc)
{
	char date[17];

	setenv("TZ", "America/New_York", 1);
	warm_sigv4_date(1369353600999, date);
	assert_string_equal(date, "20130524T000000Z");
	warm_sigv4_date(4107542399000, date);
	assert_string_equal(date, "21000228T235959Z");
	unsetenv("TZ");
}

TEST(a_part_of_a_file_has_the_digest_of_its_bytes)
{
	struct scratch s = scratch_open();
	char hex[WARM_SHA256_HEX_BYTES], want[WARM_SHA256_HEX_BYTES];
	uint8_t *data = noise(1, 600000);

	put_file(s.fd, "f", data, 600000, 0600, 0);
	scope_close int fd = openat(s.fd, "f", O_RDONLY | O_CLOEXEC);
	warm_sha256_hex(data + 1000, 590000, want);
	assert_int_equal(warm_sha256_file_hex(fd, 1000, 590000, hex, NULL), 0);
	assert_string_equal(hex, want);
	assert_int_equal(warm_sha256_file_hex(fd, 0, 0, hex, NULL), 0);
	assert_string_equal(hex, EMPTY);
	assert_int_not_equal(warm_sha256_file_hex(fd, 1000, 600000, hex, NULL), 0);
	free(data);
	scratch_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_published_suite_is_signed_as_published),
		cmocka_unit_test(the_examples_of_s3_are_signed_as_documented),
		cmocka_unit_test(random_requests_are_signed_as_botocore_does),
		cmocka_unit_test(headers_of_one_name_keep_their_order),
		cmocka_unit_test(a_value_is_appended_to_what_is_there),
		cmocka_unit_test(more_headers_than_fit_are_refused),
		cmocka_unit_test(dates_are_utc),
		cmocka_unit_test(a_part_of_a_file_has_the_digest_of_its_bytes),
	};

	return RUN(tests);
}
