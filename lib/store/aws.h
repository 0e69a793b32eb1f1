/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who we are to AWS: the credential chain, and the settings of a profile.
 *
 * In order: environment, shared files, web identity at STS, container endpoint, IMDSv2, none
 * (docs/stores.md). Files are read again at every renewal, and what expires is renewed before.
 *
 * Threads: any number on one object.
 * Source: "AWS SDKs and Tools Reference Guide", standardized credential providers.
 */
#ifndef WARM_STORE_AWS_H
#define WARM_STORE_AWS_H

#include "lib/base/buf.h"
#include "lib/base/clock.h"
#include "lib/store/http.h"

struct warm_aws;

struct warm_aws_options {
	const char *profile; /* NULL: AWS_PROFILE, else "default"; given, it goes before keys of the
			      * environment. Borrowed */
	bool anonymous;
	const char *ca_file; /* for STS; borrowed */
	const char *region;  /* for STS; NULL: warm_aws_region() */
};

int warm_aws_open(const struct warm_aws_options *options, struct warm_aws **ret_aws,
		  struct warm_error *err) WARM_CHECKED;
void warm_aws_free(struct warm_aws *aws);

/* Empty strings: no credentials, requests are not signed. */
struct warm_aws_credentials {
	char key_id[160], secret[160];
	char *token;	    /* NULL for none; owned */
	const char *source; /* "environment", ...; static */
};
void warm_aws_credentials_release(struct warm_aws_credentials *c);
#define scope_aws_credentials WARM_SCOPE(warm_aws_credentials_release)

/* The credentials that are good now. NOT having any is no error.
 * Errors: INVALID for a profile that can't be used; DENIED, TRANSIENT of STS and endpoints. */
int warm_aws_credentials(struct warm_aws *aws, struct warm_aws_credentials *ret_credentials,
			 const struct warm_call *call, struct warm_error *err) WARM_CHECKED;
/* A server says that they are no good (any more): look anew at the next call. */
void warm_aws_forget(struct warm_aws *aws);

/* AWS_REGION, AWS_DEFAULT_REGION, the profile's, else NULL. Lives as long as `aws`. */
const char *warm_aws_region(struct warm_aws *aws);
/* A setting of the profile ("endpoint_url"), or NULL. Lives as long as `aws`. */
const char *warm_aws_setting(struct warm_aws *aws, const char *name);

/* "2026-11-24T10:00:00Z", also with a fraction, in ms since 1970; -1 for anything else and NULL. */
int64_t warm_aws_parse_time(const char *text);

/* Sign a request for `service`: appends Host, X-Amz-Date, the token and Authorization to its
 * headers. All of its headers so far are signed, `payload` is as in sigv4.h and also sent as
 * x-amz-content-sha256 for S3. Without credentials nothing but that header is added.
 * `ret_who` gets "key ...ABCD" or "nobody", for messages. */
int warm_aws_sign(struct warm_aws *aws, struct warm_http_request *request, const char *region,
		  const char *service, const char *payload, int64_t skew_ms, char ret_who[24],
		  const struct warm_call *call, struct warm_error *err) WARM_CHECKED;

#endif
