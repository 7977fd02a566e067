// npm's @huggingface/transformers runs a real model that the hub serves: usage pipeline.mjs REPO COMMIT.
import assert from "node:assert/strict";
import { env, pipeline } from "@huggingface/transformers";

env.remoteHost = process.env.HF_ENDPOINT;
env.allowLocalModels = false;
env.cacheDir = `${process.env.HOME}/transformers-cache`;
const [repo, revision] = process.argv.slice(2);
const extract = await pipeline("feature-extraction", repo, { revision, dtype: "q8" });
const embed = async (text) => (await extract(text, { pooling: "mean", normalize: true })).tolist()[0];
const [cat, kitten, tax] = await Promise.all(
  ["a cat sits on the mat", "a kitten rests on a rug", "the tax form is due in May"].map(embed),
);
const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
assert.equal(cat.length, 384);
assert.ok(dot(cat, kitten) > dot(cat, tax) + 0.2, `${dot(cat, kitten)} and ${dot(cat, tax)}`);
console.log("pipeline done");
